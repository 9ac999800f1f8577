package coordinator

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lorad/coordinator/state"
	"lorad/proto"
)

var (
	bubbleHours = flag.Float64("bubble.hours", 0.2, "virtual hours of a life in a bubble")
	bubbleSeed  = flag.Uint64("bubble.seed", 0, "seed of the first life; 0: two fixed ones")
)

// life is a cluster in a bubble with people who submit and stop runs, members who work on them, and a nemesis. The seed
// draws what the nemesis and the people do; who wins an election is Raft's own chance, so a seed is not a replay.
type life struct {
	*bubble
	rng   *rand.Rand
	stop  chan struct{} // ends people and nemesis
	end   chan struct{} // ends members
	work  sync.WaitGroup
	count map[string]int

	mu       sync.Mutex
	accepted map[string]bool   // runs that somebody was told are submitted
	reported map[string]uint64 // by run: the last step that a member was told is in the ledger
	seen     map[shown]uint64  // steps that a replica has shown
}

// shown is a run on a node in one of its boots. The pointer, not its digits: these may be another boot's when this one's memory is free.
type shown struct {
	boot *Coordinator
	run  string
}

// digestOf is what every member that computes right finds.
func digestOf(run string, step uint64) uint64 {
	h := step * 0x9e3779b97f4a7c15
	for _, c := range run {
		h = h*31 + uint64(c)
	}
	return h
}

const stepTime = 500 * time.Millisecond

// member works on whatever its replica says is leased to it: a step at a time, and it complains of members it cannot reach.
func (l *life) member(c *cell) {
	for pause(l.end, stepTime) {
		l.bubble.mu.Lock()
		k, up := c.Coordinator, c.up
		l.bubble.mu.Unlock()
		if !up {
			continue
		}
		for _, r := range read(k.fsm, (*state.Machine).Runs) {
			l.watch(k, r)
			if state.Leased(r.Phase) && slices.Contains(r.Lease.Members, c.id) {
				l.report(c, k, r)
			}
		}
	}
}

// watch: what a replica has shown is never taken back, and is right.
func (l *life) watch(k *Coordinator, r *proto.Run) {
	key := shown{k, r.Spec.Run}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Step < l.seen[key] {
		l.t.Errorf("%s: run %s went back from step %d to %d", k.id, r.Spec.Run, l.seen[key], r.Step)
	}
	l.seen[key] = r.Step
}

func (l *life) report(c *cell, k *Coordinator, r *proto.Run) {
	p := &proto.Report{Run: r.Spec.Run, Node: c.id, Generation: r.Lease.Generation}
	for _, m := range r.Lease.Members {
		if m != c.id && !l.reaches(c.id, m) {
			p.Outcome, p.Suspect = proto.Outcome_ABORTED, m
		}
	}
	next := r.Step + 1
	switch {
	case p.Outcome != 0:
	case r.Step == r.Spec.Steps:
		p.Outcome, p.AdapterSha256 = proto.Outcome_FINISHED, make([]byte, 32)
	case r.Phase == proto.Phase_STOPPING:
		p.Outcome = proto.Outcome_PAUSED
	case next < r.Lease.Until:
		p.Steps = []*proto.StepRecord{{Step: next, Digest: digestOf(r.Spec.Run, next), DurationUs: uint64(stepTime.Microseconds())}}
	}
	ctx, cancel := context.WithTimeout(k.ctx, 5*time.Second)
	defer cancel()
	if err := k.Report(ctx, p); err == nil && len(p.Steps) > 0 {
		l.mu.Lock()
		l.reported[r.Spec.Run] = max(l.reported[r.Spec.Run], next)
		l.mu.Unlock()
	}
}

// people submit runs and stop some.
func (l *life) people(c *cell, rng *rand.Rand) {
	for i := 0; pause(l.stop, time.Duration(20+rng.IntN(60))*time.Second); i++ {
		l.bubble.mu.Lock()
		ctl, up := c.ctl, c.up
		l.bubble.mu.Unlock()
		if !up {
			continue
		}
		ctx, cancel := context.WithTimeout(ctl.ctx, 10*time.Second)
		job := fmt.Sprintf("job: %s-%d", c.id, i)
		if i > 2 && rng.IntN(4) == 0 {
			job = fmt.Sprintf("job: %s-%d", c.id, rng.IntN(i)) // an old one again: resumed if it was stopped
		}
		if reply, err := ctl.Submit(ctx, &proto.SubmitRequest{JobYaml: job, Dir: "/out"}); err == nil {
			l.mu.Lock()
			l.accepted[reply.Run.Spec.Run] = true
			l.mu.Unlock()
			if rng.IntN(3) == 0 {
				ctl.Stop(ctx, &proto.StopRequest{Run: reply.Run.Spec.Run})
			}
		}
		cancel()
	}
}

// nemesis disturbs one thing at a time or several, and lets things be for a while in between.
func (l *life) nemesis() {
	for pause(l.stop, time.Duration(2+l.rng.IntN(40))*time.Second) {
		what := []string{"part", "isolate leader", "crash", "crash leader", "outage", "snapshot", "heal", "heal"}[l.rng.IntN(8)]
		l.mu.Lock()
		l.count[what]++
		l.mu.Unlock()
		l.disturb(what)
	}
	l.mend()
}

func (l *life) disturb(what string) {
	all := l.all()
	victim := all[l.rng.IntN(len(all))]
	if lead := l.leader(); lead != nil && (what == "isolate leader" || what == "crash leader") {
		victim = lead
	}
	switch what {
	case "part":
		side := map[string]int{}
		for _, c := range all {
			side[c.id] = l.rng.IntN(2)
		}
		l.part(func(id string) int { return side[id] })
	case "isolate leader":
		l.part(func(id string) int { return len(id) * map[bool]int{true: 1}[id == victim.id] })
	case "crash", "crash leader":
		if victim.alive() {
			victim.crash()
			away := time.Duration(l.rng.IntN(90)) * time.Second
			l.work.Go(func() { l.restart(victim, away) })
		}
	case "outage":
		for _, c := range l.running() {
			c.crash()
			l.work.Go(func() { l.restart(c, time.Second) })
		}
	case "snapshot":
		if k, _ := victim.now(); victim.alive() {
			k.raft.Snapshot()
		}
	case "heal":
		l.part(func(string) int { return 0 })
	}
}

func (l *life) restart(c *cell, after time.Duration) {
	time.Sleep(after)
	c.start()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count["restarts"]++
}

func (l *life) mend() { l.part(func(string) int { return 0 }) }

// pause waits, and reports whether life goes on.
func pause(stop <-chan struct{}, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-stop:
		return false
	}
}

// live lets the cluster live for so long, then leaves it alone and looks at what has come of it.
func live(t *testing.T, seed uint64, hours float64) {
	l := &life{
		bubble: newBubble(t, 6), rng: rand.New(rand.NewPCG(seed, 1)), stop: make(chan struct{}), end: make(chan struct{}), count: map[string]int{},
		accepted: map[string]bool{}, reported: map[string]uint64{}, seen: map[shown]uint64{},
	}
	var members sync.WaitGroup
	endPeople, endMembers := sync.OnceFunc(func() { close(l.stop); l.work.Wait() }), sync.OnceFunc(func() { close(l.end); members.Wait() })
	t.Cleanup(endMembers) // nobody may be left in the bubble, also if something fails
	t.Cleanup(endPeople)
	for i, c := range l.all() {
		rng := rand.New(rand.NewPCG(seed, uint64(10+i)))
		l.work.Go(func() { l.people(c, rng) })
		members.Go(func() { l.member(c) })
	}
	l.work.Go(l.nemesis)
	time.Sleep(time.Duration(hours * float64(time.Hour)))
	endPeople()
	l.judge()
	t.Logf("seed %d: %d runs accepted, faults %v", seed, len(l.accepted), l.count)
}

// judge: left alone, the cluster has a leader, finishes every run that anybody was told of, has lost no step, and is of
// one mind.
func (l *life) judge() {
	l.until("a leader", time.Minute, func() bool { return l.leader() != nil })
	lead := l.leader()
	l.until("all runs over", 12*time.Hour, func() bool {
		return !slices.ContainsFunc(lead.Runs(), func(r *proto.Run) bool { return !state.Terminal(r.Phase) })
	})
	l.mu.Lock()
	accepted, reported := maps.Clone(l.accepted), maps.Clone(l.reported)
	l.mu.Unlock()
	for id := range accepted {
		if lead.Run(id) == nil {
			l.t.Errorf("run %s was accepted and is gone", id)
		}
	}
	for id, step := range reported {
		if r := lead.Run(id); r.GetStep() < step {
			l.t.Errorf("run %s: step %d was committed, the ledger ends at %d", id, step, r.GetStep())
		}
	}
	for _, r := range lead.Runs() {
		for _, s := range lead.Ledger(r.Spec.Run, 0) {
			if s.Digest != digestOf(r.Spec.Run, s.Step) {
				l.t.Errorf("run %s: record of step %d is another one's", r.Spec.Run, s.Step)
			}
		}
		if r.Phase == proto.Phase_FAILED {
			l.t.Errorf("run %s failed: %s", r.Spec.Run, r.Reason)
		}
	}
	l.until("replicas of one mind", time.Minute, func() bool { return l.ofOneMind() == nil })
	if err := l.ofOneMind(); err != nil {
		l.t.Error(err)
	}
	if n := len(lead.voterIDs()); n != 5 {
		l.t.Errorf("%d voters at the end", n)
	}
}

func (l *life) ofOneMind() error {
	var first [32]byte
	for i, c := range l.all() {
		h := read(c.fsm, func(m *state.Machine) [32]byte { h, _ := m.Hash(); return h })
		if i == 0 {
			first = h
		} else if h != first {
			return errors.New("replicas differ")
		}
	}
	return nil
}

// TestLifeInABubble: elections, partitions, crashes and snapshots for hours of virtual time.
func TestLifeInABubble(t *testing.T) {
	seeds := []uint64{1, 2}
	if *bubbleSeed > 0 {
		seeds = []uint64{*bubbleSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			began := time.Now()
			synctest.Test(t, func(t *testing.T) { live(t, seed, *bubbleHours) })
			t.Logf("%v for %v hours", time.Since(began).Round(time.Millisecond), *bubbleHours)
		})
	}
}
