package coordinator

import (
	"context"
	"testing"

	"lorad/proto"
)

// BenchmarkReport is one report of ten steps by a follower of three nodes, from the call to its own replica: two hops,
// two disks. Members report about five times a second, beside the training and not in its way.
func BenchmarkReport(b *testing.B) {
	boxes := three(b)
	_, rest := leader(boxes)
	run := rest[0].submit("job: bench").Run.Spec.Run
	rest[0].leased(run, 3, 1)
	for b.Loop() {
		p := &proto.Report{Run: run, Node: rest[0].ID(), Generation: 1}
		if err := rest[0].Report(context.Background(), p); err != nil {
			b.Fatal(err)
		}
	}
}
