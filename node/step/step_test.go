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

var plan = Plan{Steps: 12, Micros: func(done uint64) int { return micros - int(done%2) }, SaveEvery: 4, EvalEvery: 3, Eval: true}

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
	stops   bool
	log     []string
}

func (c *cluster) fatalf(format string, args ...any) {
	c.t.Helper()
	for _, l := range c.log[max(0, len(c.log)-tail):] {
		c.t.Log(l)
	}
	for _, n := range c.members {
		c.t.Logf("%s: up %v, done %d, in %T%+v, mine %v, synced %v, connected %d", n.id, n.up, n.m.Done(), n.running, n.running, n.m.mine, n.m.synced, n.m.connected)
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
		case ReportBroken:
			c.fatalf("%s broke the run: %s", n.id, a.Detail)
		default:
			n.running = a
		}
	}
}

// grant makes a new generation of the members that are up and tells everybody, one after the other.
func (c *cluster) grant() {
	c.lease.Generation++
	c.lease.Members = nil
	for _, n := range c.members {
		if n.up {
			c.lease.Members = append(c.lease.Members, n.id)
		}
	}
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
	case roll < 30 || n.running == nil:
		c.renew()
		c.feed(n, Leased{c.lease})
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
		votes := int64(len(c.decided[key]))
		c.answer(n, Reduced{votes})
	case Evaluate:
		c.answer(n, Evaluated{n.m.Done()})
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
	counts := map[int]int{}
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
			if a.VoteStop {
				result = append(result, Position{})
			}
		case Evaluate:
			if o.m.Done() != n.m.Done() {
				c.fatalf("%s evaluates step %d, %s step %d", n.id, n.m.Done(), o.id, o.m.Done())
			}
		}
	}
	if _, reduce := n.running.(Reduce); reduce {
		for i := range plan.Micros(n.m.Done()) {
			if counts[i] != 1 {
				c.fatalf("step %d: micro-batch %d counted %d times", n.m.Done()+1, i, counts[i])
			}
		}
	}
	c.decided[key] = result
	return true
}

func (c *cluster) finished() bool {
	for _, n := range c.members {
		if n.up && n.m.Over() {
			return true
		}
	}
	return false
}

func run(t *testing.T, seed uint64, size int, faults, stops bool) {
	c := &cluster{t: t, rng: rand.New(rand.NewPCG(seed, 1)), decided: map[string][]Position{}, stops: stops}
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
		if n.up && n.m.Over() && !stops && n.m.Done() != plan.Steps {
			c.fatalf("seed %d: %s ended at step %d", seed, n.id, n.m.Done())
		}
		if n.up && n.m.Over() && n.saved != n.m.Done() {
			c.fatalf("seed %d: %s ended at step %d with checkpoint %d", seed, n.id, n.m.Done(), n.saved)
		}
	}
}

// Whatever dies and comes back, every micro-batch of every step is counted exactly once, nobody waits for a
// collective that others do not enter, and the run ends.
func TestClusterUnderFaults(t *testing.T) {
	for seed := range uint64(400) {
		run(t, seed, 1+int(seed%5), seed%4 != 0, seed%7 == 0)
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
	for {
		c, ok := out[len(out)-1].(Compute)
		if !ok {
			break
		}
		out = m.Handle(Computed{c.Micro})
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
		owners []int
		keep   []bool
	}{
		{[][]int{nil, nil}, []int{0, 1, 0, 1}, []bool{true, true}},
		{[][]int{{1, 3}, nil}, []int{1, 0, 1, 0}, []bool{true, true}},
		{[][]int{{0}, {0, 1}, {2}}, []int{0, 1, 2, 0}, []bool{true, false, true}},
		{[][]int{{9}, nil}, []int{0, 1, 0, 1}, []bool{false, true}},
	} {
		owners, keep := Assign(c.claims, 4)
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
