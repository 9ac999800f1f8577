package step

import (
	"reflect"
	"slices"
	"testing"
)

// Whatever dies and comes back, every micro-batch of every step is counted exactly once, nobody waits for a
// collective that others do not enter, and the run ends.
func TestClusterUnderFaults(t *testing.T) {
	for seed := range uint64(400) {
		run(t, seed, 1+int(seed%5), seed%4 != 0, seed%7 == 0, seed%3 == 0)
	}
}

// A member that leaves does so between two steps: no gradient is computed twice.
func TestLeavingCostsNothing(t *testing.T) {
	for seed := range uint64(100) {
		want := 0
		for done := range endOf(seed) {
			want += len(work(done))
		}
		if made := run(t, seed, 1+int(seed%5), false, false, true); made != want {
			t.Fatalf("seed %d: %d gradients for %d micro-batches", seed, made, want)
		}
	}
}

// Whoever has all steps stays until those that are behind have copied its state: the home node may be one of them, and
// the run is not done before that one has finished.
func TestDonorStaysAfterTheLastStep(t *testing.T) {
	m := New("a", plan, plan.Steps)
	m.Handle(Leased{Lease{Generation: 1, Members: []string{"a", "b"}, Until: plan.Steps + 1}})
	m.Handle(Connected{1})
	there := Position{Done: plan.Steps, Evaluated: plan.Steps}
	out := m.Handle(Synced{1, []Position{there, {Done: 4}}})
	if _, ok := out[len(out)-1].(Sync); !ok {
		t.Errorf("%+v while a member is copying", out)
	}
	out = m.Handle(Synced{1, []Position{there, there}})
	if !reflect.DeepEqual(out, []Action{Finish{}}) {
		t.Errorf("%+v when all are there", out)
	}
}

// So it is if an evaluation has ended the run; who has copied the state takes part in no other one.
func TestEndedRunIsNotEvaluatedAgain(t *testing.T) {
	m := New("b", plan, 0)
	m.Handle(Leased{Lease{Generation: 1, Members: []string{"a", "b"}, Until: plan.Steps + 1}})
	m.Handle(Connected{1})
	there := Position{Done: 6, Evaluated: 6, Ended: true}
	out := m.Handle(Synced{1, []Position{there, {}}})
	if s, ok := out[len(out)-1].(Sync); !ok || !s.Mine.Ended || s.Mine.Done != 6 {
		t.Fatalf("%+v after the copy", out)
	}
	if out = m.Handle(Synced{1, []Position{there, there}}); !reflect.DeepEqual(out, []Action{Save{6}}) {
		t.Fatalf("%+v when all are there", out)
	}
	if out = m.Handle(Saved{6}); !reflect.DeepEqual(out, []Action{Finish{}}) {
		t.Errorf("%+v after the last checkpoint", out)
	}
	m = New("b", plan, 6) // from its checkpoint: it does not know, and finds out with the others
	m.Handle(Leased{Lease{Generation: 2, Members: []string{"a", "b"}, Until: plan.Steps + 1}})
	m.Handle(Connected{2})
	out = m.Handle(Synced{2, []Position{there, {Done: 6}}})
	if _, ok := out[len(out)-1].(Evaluate); !ok {
		t.Errorf("%+v where one does not know the result", out)
	}
}

// A member may sleep through the end of a run and its resumption; what was wanted then is wanted no more.
func TestStopEndsWithItsGeneration(t *testing.T) {
	m := New("a", plan, 0)
	alone := []string{"a"}
	m.Handle(Leased{Lease{Generation: 1, Members: alone, Until: 20}})
	m.Handle(StopWanted{})
	m.Handle(Connected{1})
	m.Handle(Leased{Lease{Generation: 2, Members: alone, Until: 20}})
	m.Handle(Synced{1, []Position{{}}})
	m.Handle(Connected{2})
	out := m.Handle(Synced{2, []Position{{}}})
	var next []int
	for {
		c, ok := out[len(out)-1].(Compute)
		if !ok {
			break
		}
		if next != nil && !reflect.DeepEqual(append([]int{c.Micro}, c.Next...), next) {
			t.Errorf("%+v, after which %v were said to come", c, next)
		}
		next = append([]int{}, c.Next...)
		out = m.Handle(Computed{c.Micro})
	}
	if len(next) != 0 || next == nil {
		t.Errorf("the last micro-batch is followed by %v", next)
	}
	if r, ok := out[len(out)-1].(Reduce); !ok || r.VoteStop {
		t.Errorf("%+v: a vote for a stop that generation 1 was asked for", out)
	}
}

// A copy of a peer's state that is complete when its generation is already over has moved the replica all the same: the
// machine must not offer the old step with the new state, or go on from there.
func TestCopyOutlivesItsGeneration(t *testing.T) {
	m := New("a", plan, 0)
	ring := []string{"a", "b"}
	m.Handle(Leased{Lease{Generation: 1, Members: ring, Until: 20}})
	m.Handle(Connected{1})
	if out := m.Handle(Leased{Lease{Generation: 2, Members: ring, Until: 20}}); !reflect.DeepEqual(out, []Action{Cancel{}}) {
		t.Fatalf("a new generation interrupts the sync by %v", out)
	}
	m.Handle(Synced{1, []Position{{}, {Done: 4}}})
	if m.Done() != 4 {
		t.Errorf("the machine is at step %d, its replica at 4", m.Done())
	}
	if out := m.Handle(Connected{2}); !reflect.DeepEqual(out, []Action{Sync{2, Position{Done: 4}}}) {
		t.Errorf("the next generation begins with %+v", out)
	}
}

func TestAssignKeepsWhatIsFinished(t *testing.T) {
	for _, c := range []struct {
		claims [][]int
		late   []bool
		owners []int
		keep   []bool
	}{
		{[][]int{nil, nil}, []bool{false, false}, []int{0, 1, 0, 1}, []bool{true, true}},
		{[][]int{{1, 3}, nil}, []bool{false, false}, []int{0, 0, 1, 0}, []bool{true, true}},
		{[][]int{{0}, {0, 1}, {2}}, []bool{false, false, false}, []int{0, 0, 2, 1}, []bool{true, false, true}},
		{[][]int{{9}, nil}, []bool{false, false}, []int{0, 1, 0, 1}, []bool{false, true}},
		{[][]int{nil, nil}, []bool{false, true}, []int{0, 0, 1, 0}, []bool{true, true}},
	} {
		owners, keep := Assign(c.claims, c.late, []int{5, 5, 5, 5}, slices.Repeat([]int64{9}, len(c.claims)))
		if !slices.Equal(owners, c.owners) || !slices.Equal(keep, c.keep) {
			t.Errorf("%v: owners %v keep %v, want %v %v", c.claims, owners, keep, c.owners, c.keep)
		}
	}
}

// A ring that dies while a member computes is given up at once, not when the gradients are done; the micro-batch in
// flight and those before it are kept.
func TestRingLostWhileComputing(t *testing.T) {
	m := New("a", plan, 0)
	two := []string{"a", "b"}
	m.Handle(Leased{Lease{Generation: 1, Members: two, Until: 20}})
	m.Handle(Connected{1})
	m.Handle(Synced{1, []Position{{}, {}}})
	m.Handle(Computed{0})
	want := []Action{Disconnect{}, ReportAborted{1, "b", "reset"}}
	if out := m.Handle(RingLost{1, "b", "reset"}); !reflect.DeepEqual(out, want) {
		t.Fatalf("%+v, want %+v", out, want)
	}
	if out := m.Handle(Computed{2}); out != nil {
		t.Fatalf("%+v before the coordinator has answered", out)
	}
	m.Handle(Leased{Lease{Generation: 2, Members: two, Until: 20}})
	out := m.Handle(Connected{2})
	if s, ok := out[len(out)-1].(Sync); !ok || !slices.Equal(s.Mine.Computed, []int{0, 2}) {
		t.Errorf("%+v: the finished micro-batches 0 and 2 are not claimed", out)
	}
}

// Whoever only has its output to write needs no ring, and one that died in another generation is no news.
func TestRingLostToNoHarm(t *testing.T) {
	m := New("a", plan, plan.Steps)
	m.Handle(Leased{Lease{Generation: 2, Members: []string{"a", "b"}, Until: plan.Steps + 1}})
	m.Handle(Connected{2})
	there := Position{Done: plan.Steps, Evaluated: plan.Steps}
	m.Handle(RingLost{1, "b", "reset"})
	if out := m.Handle(Synced{2, []Position{there, there}}); !reflect.DeepEqual(out, []Action{Finish{}}) {
		t.Fatalf("%+v after an old ring died", out)
	}
	if out := m.Handle(RingLost{2, "b", "reset"}); out != nil {
		t.Errorf("%+v while the output is written", out)
	}
}
