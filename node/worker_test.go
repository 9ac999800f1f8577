package node

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"lorad/node/step"
	"lorad/proto"
)

// A lease that is granted while a member writes its output under the one before is not lost: the node takes it up with
// a new worker. It used to count as done, and the other members waited for a ring that could not come about.
func TestLeaseGrantedDuringTheLastAction(t *testing.T) {
	n := &Node{cfg: Config{ID: "a"}, workers: map[string]*worker{}, ended: map[string]uint64{}, again: make(chan struct{}, 1)}
	run := func(generation uint64) *proto.Run {
		return &proto.Run{Spec: &proto.Spec{Run: "r"}, Phase: proto.Phase_RUNNING, Lease: &proto.Lease{Generation: generation, Members: []string{"a", "b"}}}
	}
	w := &worker{id: "r", latest: run(18), news: make(chan struct{}, 1), lease: step.Lease{Generation: 18}}
	n.workers["r"] = w
	n.follow(t.Context(), nil, run(19)) // while the worker finishes generation 18
	n.end("r", w.finalGeneration())
	if n.wanted(run(18)) {
		t.Error("the generation in which the work ended is taken up again")
	}
	if !n.wanted(run(19)) {
		t.Error("the next generation is not taken up")
	}
}

// The records that only a donor has travel with its state: it may die before it has reported them.
func TestRecordsTravelWithTheState(t *testing.T) {
	donor, behind := newReporter(&worker{}), newReporter(&worker{})
	add := func(r *reporter, hold bool, steps ...uint64) {
		for _, s := range steps {
			r.add(&proto.StepRecord{Step: s, Digest: s * 7}, hold)
		}
	}
	add(donor, false, 4, 5, 6)
	add(donor, true, 7)
	add(behind, false, 4)
	add(behind, true, 5)
	evalAfter := func(done uint64) bool { return done == 5 || done == 7 }
	var wire bytes.Buffer
	if err := writeRecords(&wire, donor.unreported(7)); err != nil {
		t.Fatal(err)
	}
	wire.WriteString("state")
	records, err := readRecords(&wire)
	if err != nil || wire.String() != "state" {
		t.Fatalf("%v, %q is left", err, wire.String())
	}
	behind.adopt(records, evalAfter)
	var got []uint64
	for _, s := range behind.pending {
		got = append(got, s.Step, s.Digest)
	}
	if !slices.Equal(got, []uint64{4, 28, 5, 35, 6, 42}) || behind.held.GetStep() != 7 {
		t.Errorf("pending %v, held %v", got, behind.held)
	}
	behind.evaluated(7, 1.5)
	if last := behind.pending[len(behind.pending)-1]; last.Step != 7 || last.EvalLoss != 1.5 {
		t.Errorf("the last record is %v", last)
	}
	if early := donor.unreported(5); len(early) != 2 {
		t.Errorf("up to step 5: %v", early)
	}
}

func TestRecordsOfALiar(t *testing.T) {
	for _, b := range [][]byte{{}, {1, 0}, {255, 255, 255, 255}, {4, 0, 0, 0, 1}, {2, 0, 0, 0, 255, 255}} {
		if _, err := readRecords(bytes.NewReader(b)); err == nil {
			t.Errorf("%v was taken", b)
		}
	}
}

// What is pending does not grow younger because the ledger was looked at: a member whose leader is silent speaks up.
func TestPendingStepsGrowLate(t *testing.T) {
	r := newReporter(nil)
	r.pending, r.since = []*proto.StepRecord{{Step: 3}, {Step: 4}}, time.Now().Add(-time.Minute)
	if r.drop(2); time.Since(r.since) < time.Minute {
		t.Error("a look at the ledger made the steps young again")
	}
	if r.drop(3); len(r.pending) != 1 || time.Since(r.since) > time.Second {
		t.Errorf("%d pending since %v", len(r.pending), r.since)
	}
}
