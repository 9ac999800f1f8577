package checkpoint

import (
	"bytes"
	"fmt"
	"testing"

	"lorad/internal/durable"
	"lorad/internal/durable/crashfs"
)

// life saves checkpoints and rotates, as a worker does; it goes on whatever fails. It returns the last step that was
// acknowledged.
func life(disk durable.FS) (acknowledged uint64) {
	s := store{disk, "/out"}
	for steps := 1; steps <= 4; steps++ {
		for range 2 { // a run that stops right after a checkpoint makes it again
			step, _, err := s.save("run", at(steps), func(tmp string) error {
				return durable.WriteFileOn(disk, tmp+"/adapter", bytes.Repeat([]byte{'x'}, 100), 0o644)
			})
			if err == nil {
				acknowledged = step
			}
		}
		s.rotate(2, uint64(steps), 0)
	}
	return acknowledged
}

// Whatever operation fails, once or for good, with or without a power cut afterwards: what was acknowledged can be
// restored, to the last bit, and the run can go on to save when the trouble is over.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	for name, kind := range map[string]crashfs.Fault{"once": crashfs.Once, "full": crashfs.Full, "power": crashfs.Power} {
		t.Run(name, func(t *testing.T) {
			for op, reached := 0, true; reached; op++ {
				disk := crashfs.New()
				disk.MkdirAll("/out")
				disk.Fault, disk.At = kind, op
				acknowledged := life(disk)
				reached = disk.Ops > op
				for seed := range uint64(4) {
					restored(t, fmt.Sprintf("operation %d, power cut %d", op, seed), disk.Crash(seed), acknowledged)
				}
				if disk.Fault = crashfs.None; kind != crashfs.Power {
					restored(t, fmt.Sprintf("operation %d", op), disk, acknowledged)
				}
			}
		})
	}
}

func restored(t *testing.T, when string, disk durable.FS, acknowledged uint64) {
	t.Helper()
	s, r := store{disk, "/out"}, at(0)
	step, passed := s.restore("run", 10, r)
	if step < acknowledged || r.Digest() != at(int(step)).Digest() {
		t.Fatalf("%s: step %d was acknowledged, %d restored (%v)", when, acknowledged, step, passed)
	}
	if _, _, err := s.save("run", at(5), nothing); err != nil {
		t.Fatalf("%s: nothing can be saved any more: %v", when, err)
	}
	if entries, _ := disk.ReadDir("/out"); len(entries) != len(s.list()) {
		t.Fatalf("%s: something is left over: %v", when, entries)
	}
}

// A checkpoint that is intact is not written again: replacing it would put it at risk.
func TestIntactIsKept(t *testing.T) {
	disk := crashfs.New()
	s := store{disk, "/out"}
	for i, want := range []bool{true, false} {
		written := false
		step, sum, err := s.save("run", at(3), func(string) error { written = true; return nil })
		if err != nil || step != 3 || len(sum) != 32 || written != want {
			t.Fatalf("save %d: step %d, sum %x, written %v (%v)", i+1, step, sum, written, err)
		}
	}
}
