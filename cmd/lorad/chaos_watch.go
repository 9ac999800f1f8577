package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"lorad/internal/chaos"
	"lorad/proto"
)

// watch follows a run on all nodes at once, through their deaths, and keeps what any of them ever called committed.
type watch struct {
	mu      sync.Mutex
	seen    progressSeen
	digests map[uint64]uint64  // by step, as first seen
	names   map[string]string  // node id to name
	odd     int                // steps that were seen again with another digest
	known   map[string]uint64  // by name: the last step that the node called committed
	cut     map[string]bool    // by name: nodes that are cut off
	apart   map[[2]uint64]bool // by step and generation: what nodes called committed while they were cut off
	samples []chaos.Sample     // tokens committed, as they were first seen
	changed chan struct{}
}

// progressSeen is how far the run has been seen.
type progressSeen struct {
	step       uint64
	generation uint64    // of that step
	at         time.Time // when it was seen
	growths    int       // how often steps were seen that were new
	run        *proto.Run
	granted    time.Time // when the generation of run was seen first
}

// waited says how a wait ended.
type waited int

const (
	waitedFor  waited = iota // what was waited for has come
	waitedOut                // the time is over
	waitedVain               // the run or the command is over
)

func newWatch() *watch {
	return &watch{digests: map[uint64]uint64{}, changed: make(chan struct{}), names: map[string]string{}, known: map[string]uint64{}, cut: map[string]bool{}, apart: map[[2]uint64]bool{}}
}

// follow watches the run on one node until ctx ends.
func (w *watch) follow(ctx context.Context, n *localNode, run string) {
	for ctx.Err() == nil {
		w.session(ctx, n, run)
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// session lasts as long as the node does.
func (w *watch) session(ctx context.Context, n *localNode, run string) {
	c, err := dial(ctx, n.dir)
	if err != nil {
		return
	}
	defer c.Close()
	c.follow(ctx, run, 0, eyes{w, n.name, func() (map[string]string, error) { return c.names(ctx) }})
}

// eyes are the watch at one node.
type eyes struct {
	*watch
	node string
	ask  func() (map[string]string, error) // for names of nodes, by id
}

func (e eyes) show(ev *proto.FollowEvent) {
	if e.stranger(ev.Run.Lease) {
		if names, err := e.ask(); err == nil {
			e.learn(names)
		}
	}
	e.mu.Lock()
	e.known[e.node] = ev.Run.Step
	if e.cut[e.node] {
		for _, s := range ev.Steps {
			e.apart[[2]uint64{s.Step, s.Generation}] = true
		}
	}
	e.mu.Unlock()
	e.watch.show(ev)
}

// parted notes that nodes are cut off, or are no more.
func (w *watch) parted(nodes []*localNode, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range nodes {
		w.cut[n.name] = cut
	}
}

// aside counts the steps that nodes called committed while they were cut off and that are not in the ledger. A step that was lost and is
// done again is of another generation.
func (w *watch) aside(ledger []*proto.StepRecord) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := map[[2]uint64]bool{}
	for _, s := range ledger {
		in[[2]uint64{s.Step, s.Generation}] = true
	}
	for s := range w.apart {
		if !in[s] {
			n++
		}
	}
	return n
}

// stranger says that a member is not known by name: a node that was wiped has another id afterwards.
func (w *watch) stranger(l *proto.Lease) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(l.GetMembers(), func(id string) bool { return w.names[id] == "" })
}

func (w *watch) learn(names map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, name := range names {
		w.names[id] = name
	}
}

// show takes one event. Each session begins at the first step, so that a node that came back with another past than it
// had is noticed.
func (w *watch) show(e *proto.FollowEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, tokens := w.seen.step, uint64(0)
	for _, s := range e.Steps {
		if d, known := w.digests[s.Step]; known && d != s.Digest {
			w.odd++
		} else if !known {
			w.digests[s.Step] = s.Digest
			tokens += s.TotalTokens
		}
		if s.Step > w.seen.step {
			w.seen.step, w.seen.generation, w.seen.at = s.Step, s.Generation, time.Now()
		}
	}
	if w.seen.step > last {
		w.seen.growths++
	}
	if tokens > 0 {
		w.samples = append(w.samples, chaos.Sample{At: time.Now(), Tokens: tokens})
	}
	if newer(e.Run, w.seen.run) {
		if e.Run.Lease.GetGeneration() != w.seen.run.GetLease().GetGeneration() {
			w.seen.granted = time.Now()
		}
		w.seen.run = e.Run
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// newer says whether a is a later word on the run than b: nodes are not equally up to date.
func newer(a, b *proto.Run) bool {
	return b == nil || ended(a.Phase) || !ended(b.Phase) && (a.Step > b.Step || a.Step == b.Step && a.Lease.GetGeneration() >= b.Lease.GetGeneration())
}

func (w *watch) now() progressSeen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

func (w *watch) steps() uint64 { return w.now().step }

// reach says which members of the lease a fault hits.
type reach int

const (
	nobody reach = iota
	somebody
	everybody
)

// reached says how many members of the lease are among the nodes.
func (w *watch) reached(nodes []*localNode) reach {
	w.mu.Lock()
	defer w.mu.Unlock()
	members, hit := w.seen.run.GetLease().GetMembers(), 0
	for _, id := range members {
		if slices.ContainsFunc(nodes, func(n *localNode) bool { return n.name == w.names[id] }) {
			hit++
		}
	}
	switch hit {
	case 0:
		return nobody
	case len(members):
		return everybody
	}
	return somebody
}

// past says whether a step was committed that cannot have been done before the fault at the time `at`. A fault that hits
// some members of the lease ends the generation, but for a node that was stopped and goes on as if nothing had been. If
// it kills all of them they may meet again under the old lease; the first steps that are seen then may have been in
// the log before.
func (s *progressSeen) past(before progressSeen, kind chaos.Kind, hit reach, at time.Time) bool {
	switch {
	case s.run.GetPhase() == proto.Phase_DONE, s.step == s.run.LastStep():
		return true // there is no next step
	case s.step <= before.step:
		return false
	case s.generation > before.generation, hit == nobody:
		return true
	case kind.Freezes():
		return s.at.Sub(at) > inFlight
	}
	return hit == everybody && s.growths > before.growths+1
}

// acknowledged is the newest checkpoint that the ledger says a node holds, or nil.
func (w *watch) acknowledged(node string) *proto.Checkpoint {
	w.mu.Lock()
	defer w.mu.Unlock()
	holds := func(id string) bool { return w.names[id] == node }
	for _, c := range slices.Backward(w.seen.run.GetCheckpoints()) {
		if slices.ContainsFunc(c.Nodes, holds) {
			return c
		}
	}
	return nil
}

// forget has a node that was killed begin anew.
func (w *watch) forget(n *localNode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[n.name] = 0
}

// nearly is how many steps a node may be behind to be abreast: they are reported in batches.
const nearly = 30

// abreast says whether the nodes follow the log; the caller holds the lock (see until).
func (w *watch) abreast(nodes []*localNode) bool {
	return !slices.ContainsFunc(nodes, func(n *localNode) bool { return w.known[n.name]+nearly < w.seen.step || w.known[n.name] == 0 })
}

// wait lets d pass; false if the run or the command was over before.
func (w *watch) wait(ctx context.Context, d time.Duration) bool {
	return w.until(ctx, d, func(*progressSeen) bool { return false }) == waitedOut
}

// until waits for a condition, at most d.
func (w *watch) until(ctx context.Context, d time.Duration, ok func(*progressSeen) bool) waited {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	for {
		w.mu.Lock()
		done, over, changed := ok(&w.seen), w.seen.run != nil && ended(w.seen.run.Phase), w.changed
		w.mu.Unlock()
		switch {
		case done:
			return waitedFor
		case over:
			return waitedVain
		}
		select {
		case <-changed:
		case <-timeout.C:
			return waitedOut
		case <-ctx.Done():
			return waitedVain
		}
	}
}

// end waits for the run to be over, and says what is wrong if it does not end well.
func (w *watch) end(ctx context.Context) string {
	for {
		last := w.steps()
		switch w.until(ctx, stuckAfter, func(s *progressSeen) bool { return s.step > last }) {
		case waitedFor:
			continue
		case waitedOut:
			r := w.now().run
			return fmt.Sprintf("the run is stuck after step %d: it is %s: %s", last, phase(r.GetPhase()), r.GetReason())
		}
		if r := w.now().run; r.GetPhase() != proto.Phase_DONE {
			return fmt.Sprintf("the run ended %s at step %d: %s", phase(r.GetPhase()), last, r.GetReason())
		}
		return ""
	}
}

// lost counts the steps that were seen committed and are not in the ledger as they were seen.
func (w *watch) lost(ledger []*proto.StepRecord) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := w.odd
	for step, digest := range w.digests {
		if step > uint64(len(ledger)) || ledger[step-1].Digest != digest {
			lost++
		}
	}
	return lost
}
