package sim

import (
	"fmt"

	"lorad/coordinator/sched"
)

// sighting is what a node believes of another one.
type sighting struct {
	boot    int
	alive   bool
	silent  bool  // did not answer a ping
	since   int64 // unix ms
	missing int64 // since when it was not reached; 0 = it is
}

// gossip is memberlist: the living are seen soon, the dead are suspected for some seconds.
func (n *node) gossip() {
	for _, o := range n.w.nodes {
		if o != n {
			n.sight(o)
		}
	}
	n.after(gossipEvery, n.gossip)
}

func (n *node) reaches(o *node) bool { return o == n || o.up && !o.frozen && n.w.wires.both(n, o) }

func (n *node) sight(o *node) {
	s := n.seen[o.id]
	if n.reaches(o) {
		if s == nil || !s.alive || s.boot != o.boot {
			n.seen[o.id] = &sighting{boot: o.boot, alive: true, since: n.clock()}
			return
		}
		s.missing = 0
		if s.silent {
			s.silent, s.since = false, n.clock()
		}
		return
	}
	switch {
	case s == nil || !s.alive:
	case s.missing == 0:
		s.missing = n.w.now
	case n.w.now-s.missing > 2*second:
		s.alive, s.since = false, n.clock()
	}
}

// ping notes whether a node answers and says how long that takes.
func (n *node) ping(o *node) int64 {
	if o == n {
		return 0
	}
	answers := n.reaches(o)
	if s := n.seen[o.id]; s != nil && s.alive && s.silent == answers {
		s.silent, s.since = !answers, n.clock()
	}
	if answers {
		return n.w.rng.span(ms/2, 5*ms)
	}
	if o.up {
		return pingTimeout
	}
	return ms // a dead process refuses at once
}

// liveness is what the scheduler is told.
func (n *node) liveness() map[string]sched.Liveness {
	live := map[string]sched.Liveness{n.id: {Alive: true, Since: epoch + n.began/ms + n.skew, Boot: bootName(n.boot)}}
	for _, o := range n.w.nodes {
		s := n.seen[o.id]
		switch {
		case o == n:
		case s != nil:
			live[o.id] = sched.Liveness{Alive: s.alive && !s.silent, Since: s.since, Boot: bootName(s.boot)}
		case n.w.now-n.began > newcomerGrace:
			live[o.id] = sched.Liveness{Since: epoch + (n.began+newcomerGrace)/ms + n.skew}
		}
	}
	return live
}

func bootName(boot int) string { return fmt.Sprintf("process %d", boot) }

func (n *node) describe() string {
	s := fmt.Sprintf("%s: up %v, stopped %v, leads %v, entry %d of %d", n.id, n.up, n.frozen, n.reign != nil, n.applied, len(n.w.log.entries))
	for _, u := range n.w.users {
		if r := n.machine.Run(u.run); r != nil {
			s += fmt.Sprintf("; %s %s step %d, generation %d %v until %d", u.run, r.Phase, r.Step, r.Lease.GetGeneration(), r.Lease.GetMembers(), r.Lease.GetUntil())
		}
		if k := n.workers[u.run]; k != nil {
			s += "; " + k.describe()
		} else if n.up {
			s += fmt.Sprintf("; no worker, ended in %d", n.ended[u.run])
		}
	}
	return s
}

// wires says who reaches whom. A cut wire loses what is sent; TCP notices after some silence.
type wires struct {
	w   *World
	cut [][]bool // [from][to]
}

func newWires(w *World) wires {
	cut := make([][]bool, len(w.nodes))
	for i := range cut {
		cut[i] = make([]bool, len(w.nodes))
	}
	return wires{w, cut}
}

func (x *wires) both(a, b *node) bool { return !x.cut[a.index][b.index] && !x.cut[b.index][a.index] }

func (x *wires) heal() {
	for i := range x.cut {
		clear(x.cut[i])
	}
}

// send delivers a message, unless it is lost. Now and then it is delivered twice, or late.
func (w *World) send(from, to *node, f func()) {
	lost := w.wires.cut[from.index][to.index] || w.rng.between(0, 999) < 5 && !w.quiet()
	if lost && w.rng.percent(80) {
		return
	}
	d := w.delay()
	if lost {
		d += w.rng.span(ms, 10*second) // it was under way in a buffer somewhere
	}
	to.after(d, f)
	if w.rng.between(0, 999) < 5 {
		to.after(d+w.rng.span(0, second), f)
	}
}
