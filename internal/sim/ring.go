package sim

import (
	"slices"

	"lorad/node/best"
	"lorad/node/step"
)

// Times of the all-reduce.
const (
	connectTimeout = 20 * second
	silence        = 5 * second
	linkPoll       = 100 * ms
)

type ringKey struct {
	run        string
	generation uint64
}

// ring is the all-reduce group of one generation.
type ring struct {
	w       *World
	key     ringKey
	members []string
	here    []*worker // by rank: who waits for the ring, or is in it
	ops     []*op     // by rank: the Connect in flight
	up      bool
	dead    bool
	doomed  bool  // a link breaks while the next collective completes
	seq     []int // by rank: collectives entered
	colls   []*collective
}

type opKind int

const (
	kindSync opKind = iota + 1
	kindGradient
	kindEvaluation
)

type opKey struct {
	kind opKind
	done uint64
}

// contribution is what a member brings to a collective.
type contribution struct {
	position step.Position
	parts    []part
	took     map[int]int64 // microseconds by micro-batch
	vote     bool
	leave    bool
	micros   []int // of the validation set
}

// collective is one operation: it comes to a result once all members are in it, and each member learns it by itself.
type collective struct {
	key     opKey
	in      []contribution
	present []*op // by rank
	result  []func([]contribution) step.Event
	entered int
	decided bool
}

// connect builds the ring or gives up after a while.
func (k *worker) connect(o *op, a step.Connect) {
	w := k.n.w
	key := ringKey{k.id, a.Lease.Generation}
	r := w.rings[key]
	if r == nil {
		size := len(a.Lease.Members)
		r = &ring{w: w, key: key, members: a.Lease.Members, here: make([]*worker, size), ops: make([]*op, size), seq: make([]int, size)}
		w.rings[key] = r
	}
	if !slices.Equal(r.members, a.Lease.Members) {
		w.fail("%s and others have different members in generation %d", k.n.id, a.Lease.Generation)
	}
	rank := a.Lease.Rank(k.n.id)
	leave := func(suspect, detail string) {
		if k.op != o {
			return
		}
		r.leave(rank, o, detail)
		k.answer(o, linkFailed(suspect, detail))
	}
	o.interrupt = func() { k.after(w.rng.span(0, 5*ms), func() { leave("", "cancelled") }) }
	if r.up || r.dead || r.here[rank] != nil {
		k.after(w.rng.span(ms, second), func() { leave("", "the ring of this generation is over") })
		return
	}
	r.here[rank], r.ops[rank] = k, o
	k.after(connectTimeout, func() { leave(r.missing(), "connect: timeout") })
	r.gather()
}

// leave is what a member does that is connecting with o: before the ring stands its place is free again.
func (r *ring) leave(rank int, o *op, why string) {
	switch {
	case r.ops[rank] != o:
	case r.up:
		r.die(r.members[rank], why)
	default:
		r.here[rank], r.ops[rank] = nil, nil
	}
}

// missing names a member that is not there or not reached.
func (r *ring) missing() string {
	for i, k := range r.here {
		if k == nil || k.n.frozen {
			return r.members[i]
		}
	}
	return ""
}

// gather brings the ring up once all are there and every wire holds.
func (r *ring) gather() {
	if r.up || r.dead || slices.Contains(r.here, nil) {
		return
	}
	if !r.sound() {
		r.w.after(linkPoll, r.gather)
		return
	}
	r.up = true
	for i, k := range r.here {
		o := r.ops[i]
		k.after(r.w.delay(), func() {
			if k.op != o {
				return
			}
			if r.dead {
				k.answer(o, linkFailed("", "the ring died at once"))
				return
			}
			k.ring, k.lease = r, o.action.(step.Connect).Lease
			k.answer(o, step.Connected{Generation: r.key.generation})
		})
	}
}

// sound says whether the ring's wires hold and nobody is stopped.
func (r *ring) sound() bool { return r.broken() == "" }

// broken names the member behind a wire that does not hold.
func (r *ring) broken() string {
	for i, k := range r.here {
		next := r.here[(i+1)%len(r.here)]
		switch {
		case k == nil || k.over || !k.n.up:
			return r.members[i]
		case next == nil:
			return r.members[(i+1)%len(r.members)]
		case k.n.frozen:
			return k.n.id
		case !r.w.wires.both(k.n, next.n):
			return next.n.id
		}
	}
	return ""
}

// watch lets wires that were cut break the rings over them, unless they are mended in time.
func (x *wires) watch() {
	x.w.silence()
	x.w.after(second, x.watch)
}

// silence starts the clock of every ring in which somebody is not heard.
func (w *World) silence() {
	for _, u := range w.users {
		for _, n := range w.nodes {
			k := n.workers[u.run]
			if k == nil || k.ring == nil || k.ring.dead || k.ring.sound() {
				continue
			}
			r := k.ring
			w.after(silence, func() {
				if suspect := r.broken(); suspect != "" {
					r.die(suspect, "silence")
				}
			})
		}
	}
}

// leaveRing is ring.Close, or the end of the process.
func (k *worker) leaveRing(why string) {
	if k.op != nil {
		if c, ok := k.op.action.(step.Connect); ok {
			if r := k.n.w.rings[ringKey{k.id, c.Lease.Generation}]; r != nil {
				r.leave(c.Lease.Rank(k.n.id), k.op, why)
			}
		}
	}
	if k.ring != nil {
		r := k.ring
		k.ring = nil
		r.die(k.n.id, why)
	}
}

// die ends the ring: whoever is in a collective that has come to no result fails, and some of the others too.
func (r *ring) die(suspect, why string) {
	if r.dead {
		return
	}
	r.dead = true
	for _, c := range r.colls {
		r.abort(c, suspect, why)
	}
	for _, k := range r.here {
		if k != nil && k.ring == r {
			k.after(r.w.delay(), func() { k.ringLost(r, suspect, why) })
		}
	}
}

// ringLost is what drive does when the group is dead.
func (k *worker) ringLost(r *ring, suspect, why string) {
	if k.ring == r && !k.over && !k.ending && !k.breaking {
		k.perform(k.machine.Handle(step.RingLost{Generation: r.key.generation, Suspect: suspect, Detail: why}))
	}
}

// inOrder is how a member leaves that has finished: what it had to send is on its way.
const inOrder = "it is done"

// abort fails a collective for everybody who has not learnt its result and will not.
func (r *ring) abort(c *collective, suspect, why string) {
	for i, o := range c.present {
		k := r.here[i]
		if o == nil || k == nil || k.op != o || c.decided && (why == inOrder || r.w.rng.percent(30)) {
			continue
		}
		if c.decided {
			r.w.out.Lost++
		}
		c.present[i] = nil
		k.after(r.w.delay(), func() { k.answer(o, linkFailed(suspect, why)) })
	}
}

// collective enters the next operation of the worker's ring.
func (k *worker) collective(o *op, key opKey, mine contribution, result func([]contribution) step.Event) {
	r := k.ring
	if o.cancelled || r == nil || r.dead {
		k.after(k.n.w.delay(), func() { k.answer(o, linkFailed("", "the ring is dead")) })
		return
	}
	rank := slices.Index(r.here, k)
	for len(r.colls) <= r.seq[rank] {
		n := len(r.members)
		r.colls = append(r.colls, &collective{key: key, in: make([]contribution, n), present: make([]*op, n), result: make([]func([]contribution) step.Event, n)})
	}
	c := r.colls[r.seq[rank]]
	if c.key != key {
		r.w.fail("%s: %s enters %+v where others are in %+v (generation %d)", k.id, k.n.id, key, c.key, r.key.generation)
	}
	r.seq[rank]++
	c.in[rank], c.present[rank], c.result[rank] = mine, o, result
	c.entered++
	o.interrupt = func() { // a cancelled operation aborts the group
		if c.present[rank] == o {
			r.die("", "cancelled by "+k.n.id)
		}
	}
	if c.entered == len(r.members) {
		r.w.after(r.w.rng.span(ms/4, 3*ms), func() { r.decide(c) })
	}
}

// decide brings a collective to its result, once every wire holds.
func (r *ring) decide(c *collective) {
	if r.dead || c.decided {
		return
	}
	if !r.sound() {
		r.w.after(linkPoll, func() { r.decide(c) })
		return
	}
	c.decided = true
	if r.doomed {
		r.w.after(r.w.rng.span(0, 2*ms), func() { r.die(pick(&r.w.rng, r.members), "reset") })
	}
	for i, k := range r.here {
		o := c.present[i]
		k.after(r.w.delay()/2, func() {
			if c.present[i] == o && k.op == o {
				c.present[i] = nil
				if e := c.result[i](c.in); e != nil {
					k.answer(o, e)
				}
			}
		})
	}
}

// sync tells the others where this replica stands and copies the state of the furthest one.
func (k *worker) sync(o *op, a step.Sync) {
	mine := a.Mine
	mine.Digest = k.replica.hash
	k.n.w.checks.honest(k, mine)
	k.collective(o, opKey{kindSync, 0}, contribution{position: mine}, func(all []contribution) step.Event { return k.met(o, a, all) })
}

// met is what comes after the members have met; the answer is nil if it takes longer.
func (k *worker) met(o *op, a step.Sync, all []contribution) step.Event {
	positions := make([]step.Position, len(all))
	top := 0
	for i, c := range all {
		positions[i] = c.position
		if c.position.Done > positions[top].Done {
			top = i
		}
	}
	for i, p := range positions {
		if p.Done == positions[top].Done && p.Digest != positions[top].Digest {
			k.n.w.fail("%s: replicas differ at step %d: %s and %s", k.id, p.Done, k.lease.Members[top], k.lease.Members[i])
		}
	}
	done := step.Synced{Generation: a.Generation, Positions: positions}
	if k.replica.done == positions[top].Done {
		return done
	}
	k.copyState(o, k.n.w.node(k.lease.Members[top]), positions[top].Done, done)
	return nil
}

// copyState fetches the donor's replica. A cancellation that comes when the last byte is here changes nothing.
func (k *worker) copyState(o *op, donor *node, at uint64, then step.Synced) {
	w := k.n.w
	fail := func(why string) { k.answer(o, linkFailed(donor.id, "copy state: "+why)) }
	o.interrupt = func() {
		if w.rng.percent(70) {
			k.after(ms, func() { fail("cancelled") })
		}
	}
	k.after(w.rng.span(5*ms, 300*ms), func() {
		d := donor.workers[k.id]
		if !k.n.reaches(donor) || d == nil || d.machine == nil || d.replica.done != at {
			fail("the donor is gone or at another step")
			return
		}
		if k.op != o {
			return
		}
		k.replica = d.replica
		if k.bug() == ForgetsVerdict {
			k.replica.before, k.replica.now = best.State{}, best.State{}
		}
		k.reports.adopt(&d.reports)
		w.note(k.n.id, "%s: copied the state of step %d from %s", k.id, at, donor.id)
		k.accumFor()
		k.answer(o, then)
	})
}
