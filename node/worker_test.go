package node

import (
	"bytes"
	"log/slog"
	"slices"
	"testing"
	"time"

	"lorad/engine"
	"lorad/engine/optim"
	"lorad/node/replica"
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
	behind.evaluated(7, 1.5, false)
	if last := behind.pending[len(behind.pending)-1]; last.Step != 7 || last.EvalLoss != 1.5 {
		t.Errorf("the last record is %v", last)
	}
	if early := donor.unreported(5); len(early) != 2 {
		t.Errorf("up to step 5: %v", early)
	}
}

// slowFetcher takes the first chunk of a state and no more, until it is let go.
type slowFetcher struct {
	proto.Peer_FetchStateServer
	began chan struct{}
	goOn  chan struct{}
	got   bytes.Buffer
}

func (s *slowFetcher) Send(c *proto.Chunk) error {
	if s.got.Len() == 0 {
		close(s.began)
		<-s.goOn
	}
	s.got.Write(c.Data)
	return nil
}

// A peer that fetches the state slowly, or has died with its connection open, does not keep the donor from stepping, and
// gets the state that it asked for all the same.
func TestSlowFetcherStopsNobody(t *testing.T) {
	rep := replica.New(&vector{params: []float32{1, 2, 3}}, replica.Rule{Schedule: optim.Schedule{Kind: "constant", Peak: 0.1, Total: 10}})
	w := &worker{id: "r", replica: rep}
	w.reports = newReporter(w)
	n := &Node{cfg: Config{ID: "a", Log: slog.New(slog.DiscardHandler)}, workers: map[string]*worker{"r": w}}
	s := &slowFetcher{began: make(chan struct{}), goOn: make(chan struct{})}
	served := make(chan error)
	go func() { served <- n.FetchState(&proto.FetchStateRequest{Run: "r"}, s) }()
	<-s.began
	stepped := make(chan struct{})
	go func() { rep.Step([]float32{1, 1, 1}); close(stepped) }()
	select {
	case <-stepped:
	case <-time.After(20 * time.Second):
		t.Fatal("the donor waits for the fetcher")
	}
	close(s.goOn)
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if _, err := readRecords(&s.got); err != nil {
		t.Fatal(err)
	}
	copied := replica.New(&vector{params: make([]float32, 3)}, replica.Rule{})
	if err := copied.Decode(&s.got); err != nil || copied.Done() != 0 {
		t.Errorf("the copy is of step %d, %v", copied.Done(), err)
	}
}

// vector is a Trainer with parameters and nothing else.
type vector struct {
	engine.Trainer
	params []float32
}

func (v *vector) Params() []float32 { return v.params }
func (v *vector) Changed()          {}
func (v *vector) Layout() []engine.Tensor {
	return []engine.Tensor{{Name: "x", Shape: []int{len(v.params)}}}
}

func TestDonorsShareTheLoad(t *testing.T) {
	all := []step.Position{{Done: 7}, {Done: 7}, {Done: 7}, {}, {Done: 3}, {}, {}}
	var got []int
	for rank := 3; rank < len(all); rank++ {
		got = append(got, donorFor(rank, all))
	}
	if !slices.Equal(got, []int{2, 1, 0, 2}) {
		t.Errorf("the members that are behind copy from %v", got)
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
	if r.drop(3); len(r.pending) != 1 || time.Since(r.since) > 30*time.Second {
		t.Errorf("%d pending since %v", len(r.pending), r.since)
	}
}
