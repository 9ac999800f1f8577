// Package step is the pure heart of a node: one run, one member, one decision at a time.
//
// A Machine holds what a member knows of a run (its lease, whether its ring stands, which step its replica has
// done, which micro-batches of the next one are summed) and answers the only question the shell ever asks:
// what now? The shell does the work (sockets, gradients, files) and says what came of it; the machine never
// blocks, reads no clock and starts nothing, so a simulation can drive a whole cluster of them by hand.
//
// Rules it keeps:
//   - One long action at a time. A new generation cancels only what hangs on a link (Connect, Sync, Reduce,
//     Evaluate); a finished micro-batch is never thrown away because somebody else died.
//   - A collective is entered only by members that agreed, in Sync, on the step, on what is evaluated and on
//     who owns which micro-batch of the first step; whether to stop they vote on with every sum. Everything after that follows
//     from data all members hold, so nobody waits for a collective that another will not enter.
//   - Micro-batches are dealt by measured speed (deal.go). What each one took travels with the sum, so that all members
//     deal by the same numbers; at the beginning of a generation they take over those of the furthest member.
//   - A member that wants to leave says so with its sum. All members then stand still after that step and the next
//     generation begins without it: nothing is computed twice.
//   - A step is done when it is applied. Whoever is behind copies the state of a member that is ahead:
//     steps are deterministic, so equal step means equal bits, and Sync refuses to go on if it does not.
//
// Why not a loop with blocking calls? Because every interleaving of "lease changed", "link died", "stop asked"
// would then live in select statements that no test can enumerate.
package step

import (
	"fmt"
	"slices"
)

// Lease is the right of Members to do the steps below Until under one Generation.
type Lease struct {
	Generation uint64
	Members    []string // ring order
	Until      uint64   // steps numbered below it (the first is 1) may be done
}

// Rank is the place of id in the ring, or -1.
func (l Lease) Rank(id string) int {
	return slices.Index(l.Members, id)
}

// Plan is what never changes in a run.
type Plan struct {
	Steps     uint64
	Work      func(done uint64) []int // tokens of each micro-batch of the step after `done` steps
	SaveEvery uint64                  // 0 = only at the end
	EvalEvery uint64                  // 0 = only at the end
	Val       []int                   // tokens of each micro-batch of the validation set; none = there is none
}

// EvalAfter says whether the validation loss is taken after `done` steps.
func (p Plan) EvalAfter(done uint64) bool {
	return len(p.Val) > 0 && (done == p.Steps || p.EvalEvery > 0 && done%p.EvalEvery == 0)
}

// Position is what members compare in Sync.
type Position struct {
	Done      uint64 // steps applied
	Evaluated uint64 // last step after which the validation loss was taken
	Digest    uint64 // of parameters and optimiser state
	Ended     bool   `json:",omitempty"` // the evaluation after Done steps has ended the run
	Computed  []int  // micro-batches of step Done+1 already summed here, ascending

	// Pace is what this member knows of the speed of the members of its last generation, in nanoseconds per token.
	Pace map[string]int64 `json:",omitempty"`
}

// Machine is one member's view of one run. The zero value is not usable: see New.
type Machine struct {
	self string
	plan Plan

	lease     Lease
	connected uint64 // generation whose ring stands; 0 = none
	synced    bool
	aborted   uint64   // generation already reported as aborted
	lost      RingLost // the newest ring that is known to be dead; it may still be connected

	done      uint64
	evaluated uint64
	ended     bool // by the evaluation after step done
	saved     uint64
	stopAt    uint64
	stop      bool
	leave     bool
	leavers   int64        // of this generation, as its sums say
	yielded   uint64       // generation that was reported as yielded
	work      []int        // tokens of each micro-batch of the step
	owners    []int        // by micro-batch of the step: a rank
	speeds    speeds       // of the members of the lease, by rank
	computed  map[int]bool // micro-batches of step done+1 in the accumulator
	reduced   bool
	finished  bool
	broken    bool
	unable    bool

	running Action // the long action in flight
}

// New starts a member whose replica has done `done` steps (0: fresh; otherwise: from a checkpoint).
func New(self string, plan Plan, done uint64) *Machine {
	return &Machine{self: self, plan: plan, done: done, saved: done, computed: map[int]bool{}, work: plan.workAfter(done)}
}

// Done is the number of steps the replica has done.
func (m *Machine) Done() uint64 { return m.done }

// Over says that nothing more will happen here.
func (m *Machine) Over() bool { return m.finished || m.broken || m.unable }

// Handle takes one event and returns what to do now, in order; at most one action is long and it is the last.
func (m *Machine) Handle(e Event) []Action {
	var out []Action
	switch e := e.(type) {
	case Leased:
		out = m.leased(e.Lease)
	case StopWanted:
		m.stop = true
	case LeaveWanted:
		m.leave = true
	case RingLost:
		out = m.ringLost(e)
	default:
		out = m.answered(e)
	}
	if m.running == nil && !m.Over() {
		out = append(out, m.next()...)
	}
	return out
}

// leased takes a new lease: a renewal only moves Until, another generation tears the ring down.
func (m *Machine) leased(l Lease) []Action {
	if l.Generation < m.lease.Generation {
		return nil
	}
	changed := l.Generation != m.lease.Generation
	m.lease = l
	if !changed {
		return nil
	}
	m.synced = false
	m.stop, m.stopAt = false, 0
	m.leave, m.leavers = false, 0
	if m.running != nil && cancellable(m.running) {
		return []Action{Cancel{}}
	}
	return nil
}

// ringLost asks for a new generation at once when the member is at its gradients, which may take long: that of the
// micro-batch in flight is kept. Elsewhere next finds out: a save comes first, and the last ones need no ring.
func (m *Machine) ringLost(e RingLost) []Action {
	m.lost = e
	if _, computing := m.running.(Compute); computing && m.isLost() {
		return m.giveUp(e.Suspect, e.Detail)
	}
	return nil
}

// isLost says whether the ring that the member works in is known to be dead.
func (m *Machine) isLost() bool {
	return m.lost.Generation != 0 && m.lost.Generation == m.connected && m.connected == m.lease.Generation
}

// giveUp drops the ring and asks for a new generation, once.
func (m *Machine) giveUp(suspect, detail string) []Action {
	gen := m.lease.Generation
	m.synced, m.connected = false, 0
	out := []Action{Disconnect{}}
	if m.aborted != gen {
		m.aborted = gen
		out = append(out, ReportAborted{Generation: gen, Suspect: suspect, Detail: detail})
	}
	return out
}

func cancellable(a Action) bool {
	switch a.(type) {
	case Connect, Sync, Reduce, Evaluate:
		return true
	}
	return false
}

// answered takes the answer of the long action in flight.
func (m *Machine) answered(e Event) []Action {
	was := m.running
	m.running = nil
	switch e := e.(type) {
	case Connected:
		m.connected = e.Generation
	case Synced:
		if e.Generation == m.lease.Generation {
			return m.agree(e.Positions)
		}
		m.catchUp(furthest(e.Positions)) // the replica is there, whatever became of the generation
	case Computed:
		m.computed[e.Micro] = true
	case Reduced:
		m.reduced = true
		m.speeds.measure(m.work, m.owners, e.Took)
		if generationOf(was) == m.lease.Generation { // who left the last one is not in this one
			m.leavers = e.Leaves
		}
		if e.Votes > 0 {
			m.stopAt = m.done + 1
		}
	case Applied:
		m.advance(e.Done)
	case Evaluated:
		m.evaluated, m.ended = e.Done, e.Last
	case Saved:
		m.saved = e.Done
	case Closed:
		m.finished = true
		m.connected = 0
		return []Action{Disconnect{}}
	case Unable:
		m.unable = true
		m.connected = 0
		return []Action{Disconnect{}, ReportUnable{Generation: m.lease.Generation, Detail: e.Detail}}
	case Failed:
		return m.failed(was, e)
	default:
		panic(fmt.Sprintf("step: unexpected event %T", e))
	}
	return nil
}

// advance moves to the next step and deals its micro-batches.
func (m *Machine) advance(done uint64) {
	m.done, m.reduced, m.ended = done, false, false
	clear(m.computed)
	m.work = m.plan.workAfter(done)
	m.owners = m.speeds.deal(m.work)
}

// failed turns a failure into a request for a new generation, or into the end of the run. A failure that
// belongs to an older generation is only the echo of a Cancel.
func (m *Machine) failed(was Action, f Failed) []Action {
	if !f.Link {
		m.broken = true
		m.connected = 0
		return []Action{Disconnect{}, ReportBroken{Detail: f.Detail}}
	}
	if generationOf(was) == m.lease.Generation {
		return m.giveUp(f.Suspect, f.Detail)
	}
	m.synced, m.connected = false, 0
	return []Action{Disconnect{}}
}

func generationOf(a Action) uint64 {
	switch a := a.(type) {
	case Connect:
		return a.Lease.Generation
	case Sync:
		return a.Generation
	case Reduce:
		return a.Generation
	case Evaluate:
		return a.Generation
	}
	return 0
}

// next decides what to do when nothing is in flight.
func (m *Machine) next() []Action {
	gen := m.lease.Generation
	switch {
	case m.lease.Rank(m.self) < 0:
		if m.connected == 0 {
			return nil
		}
		m.connected = 0
		return []Action{Disconnect{}}
	case m.reduced: // the sum is complete: the step counts, whatever happened to the ring since
		return m.start(Apply{Done: m.done})
	case m.aborted == gen:
		return nil // wait for the coordinator's answer
	case m.connected != gen:
		return append([]Action{Disconnect{}}, m.start(Connect{Lease: m.lease})...)
	case !m.synced:
		return m.start(Sync{Generation: gen, Mine: m.position()})
	default:
		return m.proceed(gen)
	}
}

// proceed decides what a member in a standing, agreed ring does next.
func (m *Machine) proceed(gen uint64) []Action {
	last := m.complete()
	stopping := m.stopAt != 0 && m.done >= m.stopAt
	switch {
	case m.yields() && !m.deserted():
		return m.yield(gen)
	case m.isLost() && (m.evalDue() || !last && !stopping && !m.yields()):
		return m.giveUp(m.lost.Suspect, m.lost.Detail)
	case m.evalDue():
		return m.start(Evaluate{Generation: gen, Done: m.done, Micros: m.share(Deal(m.plan.Val, m.speeds.dealt))})
	case m.saveDue(last || stopping || m.yields()):
		return m.start(Save{Done: m.done})
	case last:
		return m.start(Finish{})
	case stopping:
		return m.start(Finish{Paused: true})
	case m.yields():
		return m.yield(gen)
	case m.done+1 >= m.lease.Until:
		return nil // wait for the renewal
	}
	if left := m.left(); len(left) > 0 {
		return m.start(Compute{Done: m.done, Micro: left[0], Next: left[1:]})
	}
	return m.start(Reduce{Generation: gen, Done: m.done, VoteStop: m.stop, VoteLeave: m.leave})
}

// yields: the last sum said that a member leaves. A run that stops or has all its steps goes that way instead.
func (m *Machine) yields() bool {
	return m.leavers > 0 && m.stopAt == 0 && !m.complete()
}

// complete: there is no further step.
func (m *Machine) complete() bool { return m.done == m.plan.Steps || m.ended }

// deserted: all members leave at once. Nobody goes on from here, so what the others would do is done now.
func (m *Machine) deserted() bool { return m.leavers == int64(len(m.lease.Members)) }

// yield stands still until the next generation.
func (m *Machine) yield(gen uint64) []Action {
	if m.yielded == gen {
		return nil
	}
	m.yielded = gen
	return []Action{ReportYielded{Generation: gen}}
}

// left lists what this member has still to compute of the step.
func (m *Machine) left() []int {
	return slices.DeleteFunc(m.share(m.owners), func(micro int) bool { return m.computed[micro] })
}

// share lists what this member owns.
func (m *Machine) share(owners []int) []int {
	rank := m.lease.Rank(m.self)
	var mine []int
	for micro, owner := range owners {
		if owner == rank {
			mine = append(mine, micro)
		}
	}
	return mine
}

func (m *Machine) evalDue() bool {
	return m.evaluated < m.done && m.plan.EvalAfter(m.done)
}

func (m *Machine) saveDue(ending bool) bool {
	return m.saved < m.done && (ending || m.plan.SaveEvery > 0 && m.done%m.plan.SaveEvery == 0)
}

func (m *Machine) start(a Action) []Action {
	m.running = a
	return []Action{a}
}
