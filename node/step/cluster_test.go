package step

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

const (
	micros = 5
	tail   = 60 // lines of history that a failure prints
)

var plan = Plan{Steps: 12, Work: work, SaveEvery: 4, EvalEvery: 3, Val: []int{10, 10, 10}}

func work(done uint64) []int { return []int{40, 10, 25, 25, 30}[:micros-int(done%2)] }

// member is one simulated node: its machine, and what the shell would hold for it.
type member struct {
	id      string
	m       *Machine
	running Action
	accum   []int // micro-batches of step done+1, in order of arrival
	saved   uint64
	met     uint64 // generation whose Sync has been answered here; a second one may follow
	up      bool
}

// cluster runs machines under a seeded schedule of completions, aborts, crashes and restarts.
type cluster struct {
	t       *testing.T
	rng     *rand.Rand
	members []*member
	lease   Lease
	decided map[string][]Position // collectives that came to a result, and what it is; nil positions for sums
	sums    map[string]Reduced
	stops   bool
	leaves  bool
	ends    uint64          // the evaluation after this step is the last
	away    map[string]bool // who wants to be in no generation
	made    int             // gradients
	took    []int64         // what micro-batches are said to take, by micro-batch
	log     []string
}

func (c *cluster) fatalf(format string, args ...any) {
	c.t.Helper()
	for _, l := range c.log[max(0, len(c.log)-tail):] {
		c.t.Log(l)
	}
	for _, n := range c.members {
		c.t.Logf("%s: up %v, done %d, in %T%+v, mine %v, synced %v, connected %d", n.id, n.up, n.m.Done(), n.running, n.running, n.m.owners, n.m.synced, n.m.connected)
	}
	c.t.Fatalf(format, args...)
}

func (c *cluster) feed(n *member, e Event) {
	if l, ok := e.(Leased); !ok || l.Lease.Generation != n.m.lease.Generation {
		c.log = append(c.log, fmt.Sprintf("%s <- %T%+v", n.id, e, e))
	}
	for _, a := range n.m.Handle(e) {
		c.log = append(c.log, fmt.Sprintf("%s -> %T%+v", n.id, a, a))
		switch a := a.(type) {
		case Cancel, Disconnect:
		case Discard:
			n.accum = nil
		case ReportAborted:
			if a.Generation == c.lease.Generation {
				c.grant()
			}
		case ReportYielded:
			if a.Generation == c.lease.Generation {
				c.relieve()
			}
		case ReportBroken:
			c.fatalf("%s broke the run: %s", n.id, a.Detail)
		default:
			n.running = a
		}
	}
}

// grant makes a new generation of the members that are up and tells everybody, one after the other.
func (c *cluster) grant() { c.regroup(false) }

// relieve lets those go who want to leave, now that nobody is in the middle of a step. Somebody who has the state stays.
func (c *cluster) relieve() { c.regroup(true) }

func (c *cluster) regroup(between bool) {
	before := c.lease.Members
	stays := func(n *member) bool {
		return n.up && (!c.away[n.id] || !between && slices.Contains(before, n.id))
	}
	next := c.which(stays)
	if !slices.ContainsFunc(next, func(id string) bool { return slices.Contains(before, id) }) {
		next = c.which(func(n *member) bool { return stays(n) || n.up && slices.Contains(before, n.id) })
	}
	c.lease.Generation++
	c.lease.Members = next
}

func (c *cluster) which(ok func(*member) bool) []string {
	var ids []string
	for _, n := range c.members {
		if ok(n) {
			ids = append(ids, n.id)
		}
	}
	return ids
}

func (c *cluster) answer(n *member, e Event) {
	n.running = nil
	c.feed(n, e)
}

// tick lets one thing happen.
func (c *cluster) tick(faults bool) {
	n := c.members[c.rng.IntN(len(c.members))]
	switch roll := c.rng.IntN(100); {
	case faults && roll < 1:
		c.crash(n)
	case faults && roll < 3 && n.up && cancellable(orNil(n.running)):
		c.answer(n, Failed{Link: true, Detail: "link died"})
	case faults && roll < 3 && n.up && n.m.connected != 0:
		c.feed(n, RingLost{Generation: n.m.connected - uint64(c.rng.IntN(2)), Detail: "link died"})
	case !n.up:
		c.restart(n)
	case c.stops && roll < 4:
		c.feed(n, StopWanted{})
	case c.leaves && roll < 5:
		c.turn(n)
	case roll < 30 || n.running == nil:
		c.renew()
		c.feed(n, Leased{c.lease})
		if c.away[n.id] {
			c.feed(n, LeaveWanted{})
		}
	default:
		c.complete(n)
	}
}

func orNil(a Action) Action {
	if a == nil {
		return Disconnect{}
	}
	return a
}

func (c *cluster) renew() {
	for _, n := range c.members {
		if n.m.Done()+2 > c.lease.Until {
			c.lease.Until = n.m.Done() + 3
		}
	}
}

// turn has a member leave, or one that has left come back.
func (c *cluster) turn(n *member) {
	leaving := !c.away[n.id]
	if leaving && len(c.which(func(o *member) bool { return o.up && !c.away[o.id] })) == 1 {
		return // somebody has to stay
	}
	c.log = append(c.log, fmt.Sprintf("%s away: %v", n.id, leaving))
	if c.away[n.id] = leaving; !leaving {
		c.grant()
	}
}

func (c *cluster) crash(n *member) {
	if !n.up || len(c.lease.Members) == 1 {
		return
	}
	c.log = append(c.log, n.id+" crashed")
	n.up, n.running, n.accum = false, nil, nil
	c.grant()
}

func (c *cluster) restart(n *member) {
	c.log = append(c.log, n.id+" restarted")
	n.m, n.up = New(n.id, plan, n.saved), true
	c.grant()
}

func (c *cluster) complete(n *member) {
	switch a := n.running.(type) {
	case Compute:
		if a.Done != n.m.Done() || slices.Contains(n.accum, a.Micro) {
			c.fatalf("%s computes %+v with %v summed at step %d", n.id, a, n.accum, n.m.Done())
		}
		n.accum = append(n.accum, a.Micro)
		c.made++
		c.answer(n, Computed{a.Micro})
	case Apply:
		n.accum = nil
		c.answer(n, Applied{a.Done + 1})
	case Save:
		n.saved = a.Done
		c.answer(n, Saved(a))
	case Finish:
		c.answer(n, Closed{})
	default:
		c.collective(n)
	}
}

// collective completes if every member of the generation is in it, or it was decided already.
func (c *cluster) collective(n *member) {
	gen := generationOf(n.running)
	key := keyOf(n)
	if _, ok := c.decided[key]; !ok {
		if gen != c.lease.Generation {
			c.answer(n, Failed{Link: true, Detail: "generation is over"})
			return
		}
		if !c.decide(n, key) {
			return
		}
	}
	switch n.running.(type) {
	case Connect:
		c.answer(n, Connected{gen})
	case Sync:
		all := c.decided[key]
		n.met = gen
		for _, p := range all {
			if p.Done > n.m.Done() {
				n.accum = nil
			}
		}
		c.answer(n, Synced{gen, all})
	case Reduce:
		c.answer(n, c.sums[key])
	case Evaluate:
		c.answer(n, Evaluated{n.m.Done(), n.m.Done() == c.ends})
	}
}

// keyOf names the collective that a member is in.
func keyOf(n *member) string {
	switch n.running.(type) {
	case Connect, Sync: // entered before the members agree on a step
		return fmt.Sprintf("%d %T %v", generationOf(n.running), n.running, n.met == generationOf(n.running))
	}
	return fmt.Sprintf("%d %T %d", generationOf(n.running), n.running, n.m.Done())
}

// decide gathers the members of the generation; all must be in the same collective, or still on their way.
func (c *cluster) decide(n *member, key string) bool {
	var in []*member
	for _, id := range c.lease.Members {
		for _, o := range c.members {
			if o.id != id {
				continue
			}
			if o.running == nil || reflect.TypeOf(o.running) != reflect.TypeOf(n.running) || generationOf(o.running) != c.lease.Generation {
				return false
			}
			if _, over := c.decided[keyOf(o)]; over {
				return false // its result is on the way
			}
			in = append(in, o)
		}
	}
	var result []Position
	counts, sum := map[int]int{}, Reduced{Took: c.took}
	for _, o := range in {
		switch a := o.running.(type) {
		case Sync:
			result = append(result, a.Mine)
		case Reduce:
			if o.m.Done() != n.m.Done() {
				c.fatalf("%s reduces step %d, %s step %d", n.id, n.m.Done(), o.id, o.m.Done())
			}
			for _, i := range o.accum {
				counts[i]++
			}
			sum.Votes += count(a.VoteStop)
			sum.Leaves += count(a.VoteLeave)
		case Evaluate:
			if o.m.Done() != n.m.Done() {
				c.fatalf("%s evaluates step %d, %s step %d", n.id, n.m.Done(), o.id, o.m.Done())
			}
			for _, i := range a.Micros {
				counts[i]++
			}
		}
	}
	c.covers(n, counts)
	c.decided[key], c.sums[key] = result, sum
	return true
}

func count(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// covers checks that each micro-batch of the collective that n is in comes from exactly one member.
func (c *cluster) covers(n *member, counts map[int]int) {
	want := 0
	switch n.running.(type) {
	case Reduce:
		want = len(work(n.m.Done()))
	case Evaluate:
		want = len(plan.Val)
	}
	for i := range want {
		if counts[i] != 1 {
			c.fatalf("%T after step %d: micro-batch %d counted %d times", n.running, n.m.Done(), i, counts[i])
		}
	}
}

func (c *cluster) finished() bool {
	for _, n := range c.members {
		if n.up && n.m.Over() {
			return true
		}
	}
	return false
}

// endOf is the step that a run ends with: some end before their time.
func endOf(seed uint64) uint64 { return []uint64{plan.Steps, 6, plan.Steps, 9}[seed/4%4] }

// run returns how many gradients were computed.
func run(t *testing.T, seed uint64, size int, faults, stops, leaves bool) int {
	c := &cluster{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), decided: map[string][]Position{}, sums: map[string]Reduced{},
		ends: endOf(seed), stops: stops, leaves: leaves, away: map[string]bool{}, took: []int64{100, int64(seed % 900), 30, 0, 7000},
	}
	for i := range size {
		id := string(rune('a' + i))
		c.members = append(c.members, &member{id: id, m: New(id, plan, 0), up: true})
	}
	c.lease.Until = 2
	c.grant()
	for i := 0; !c.finished(); i++ {
		if i > 200000 {
			c.fatalf("no end in sight: seed %d", seed)
		}
		c.tick(faults && i < 3000)
	}
	for _, n := range c.members {
		if n.up && n.m.Over() && (!stops && n.m.Done() != c.ends || n.m.Done() > c.ends) {
			c.fatalf("seed %d: %s ended at step %d", seed, n.id, n.m.Done())
		}
		if n.up && n.m.Over() && n.saved != n.m.Done() {
			c.fatalf("seed %d: %s ended at step %d with checkpoint %d", seed, n.id, n.m.Done(), n.saved)
		}
	}
	return c.made
}
