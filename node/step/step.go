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
//   - A step is done when it is applied. Whoever is behind copies the state of a member that is ahead:
//     steps are deterministic, so equal step means equal bits, and Sync refuses to go on if it does not.
//
// Why not a loop with blocking calls? Because every interleaving of "lease changed", "link died", "stop asked"
// would then live in select statements that no test can enumerate.
package step

import "fmt"

// Lease is the right of Members to do the steps below Until under one Generation.
type Lease struct {
	Generation uint64
	Members    []string // ring order
	Until      uint64   // steps numbered below it (the first is 1) may be done
}

// Rank is the place of id in the ring, or -1.
func (l Lease) Rank(id string) int {
	for i, m := range l.Members {
		if m == id {
			return i
		}
	}
	return -1
}

// Plan is what never changes in a run.
type Plan struct {
	Steps     uint64
	Micros    func(done uint64) int // micro-batches of the step after `done` steps
	SaveEvery uint64                // 0 = only at the end
	EvalEvery uint64                // 0 = only at the end, if Eval
	Eval      bool                  // there is something to evaluate on
}

// EvalAfter says whether the validation loss is taken after `done` steps.
func (p Plan) EvalAfter(done uint64) bool {
	return p.Eval && (done == p.Steps || p.EvalEvery > 0 && done%p.EvalEvery == 0)
}

// Position is what members compare in Sync.
type Position struct {
	Done      uint64 // steps applied
	Evaluated uint64 // last step after which the validation loss was taken
	Digest    uint64 // of parameters and optimiser state
	Computed  []int  // micro-batches of step Done+1 already summed here, ascending
}

// Event is something that happened.
type Event interface{ event() }

type (
	// Leased carries the newest lease of the run; the zero Lease means there is none.
	Leased struct{ Lease Lease }
	// StopWanted asks for a checkpoint and a pause at the next step boundary. It holds for the present generation: the
	// next one may be of the same run resumed, so the shell repeats it as long as the run is to stop.
	StopWanted struct{}
	// Connected says that the ring of this generation stands.
	Connected struct{ Generation uint64 }
	// Synced carries what all members (by rank) declared; the replica has caught up with the furthest.
	Synced struct {
		Generation uint64
		Positions  []Position
	}
	// Computed says that the gradient of a micro-batch is in the accumulator.
	Computed struct{ Micro int }
	// Reduced says that the sum of the step is complete and verified.
	Reduced struct{ Votes int64 }
	// Applied says that the optimiser has made the step.
	Applied struct{ Done uint64 }
	// Evaluated says that the validation loss after the step is known.
	Evaluated struct{ Done uint64 }
	// Saved says that the checkpoint of the step is durable.
	Saved struct{ Done uint64 }
	// Closed says that the final output is written and reported.
	Closed struct{}
	// RingLost says that the ring of this generation is dead, whatever the member is at. It answers nothing: a
	// collective that was in it fails by itself.
	RingLost struct {
		Generation      uint64
		Suspect, Detail string
	}
	// Failed says that the long action failed. Link: the ring is at fault and a new generation may help;
	// otherwise the run itself is broken.
	Failed struct {
		Link    bool
		Suspect string
		Detail  string
	}
)

func (Leased) event()     {}
func (StopWanted) event() {}
func (Connected) event()  {}
func (Synced) event()     {}
func (Computed) event()   {}
func (Reduced) event()    {}
func (Applied) event()    {}
func (Evaluated) event()  {}
func (Saved) event()      {}
func (Closed) event()     {}
func (RingLost) event()   {}
func (Failed) event()     {}

// Action is something to do. Long actions answer with one event (or Failed); the others answer nothing.
type Action interface{ action() }

type (
	// Connect builds the ring of the lease (long; cancellable).
	Connect struct{ Lease Lease }
	// Sync exchanges Mine with all members and copies the state of the furthest (long; cancellable).
	Sync struct {
		Generation uint64
		Mine       Position
	}
	// Compute adds the gradient of one micro-batch of step Done+1 (long).
	Compute struct {
		Done  uint64
		Micro int
	}
	// Reduce sums the accumulators of step Done+1 (long; cancellable).
	Reduce struct {
		Generation, Done uint64
		VoteStop         bool
	}
	// Apply makes step Done+1 with the reduced sum (long).
	Apply struct{ Done uint64 }
	// Evaluate takes the validation loss after Done steps, a collective (long; cancellable).
	Evaluate struct{ Generation, Done uint64 }
	// Save makes the checkpoint after Done steps durable (long).
	Save struct{ Done uint64 }
	// Finish writes the output (Paused: says it can be resumed) and ends the member's work (long).
	Finish struct{ Paused bool }
	// Cancel interrupts the running long action, which then answers Failed or its result; both are fine.
	Cancel struct{}
	// Discard empties the accumulator: its micro-batches belong to others now.
	Discard struct{}
	// Disconnect drops the ring, if any.
	Disconnect struct{}
	// ReportAborted asks the coordinator for a new generation.
	ReportAborted struct {
		Generation      uint64
		Suspect, Detail string
	}
	// ReportBroken tells the coordinator that the run cannot go on.
	ReportBroken struct{ Detail string }
)

func (Connect) action()       {}
func (Sync) action()          {}
func (Compute) action()       {}
func (Reduce) action()        {}
func (Apply) action()         {}
func (Evaluate) action()      {}
func (Save) action()          {}
func (Finish) action()        {}
func (Cancel) action()        {}
func (Discard) action()       {}
func (Disconnect) action()    {}
func (ReportAborted) action() {}
func (ReportBroken) action()  {}

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
	saved     uint64
	stopAt    uint64
	stop      bool
	mine      []int        // micro-batches of the step that this member owes
	computed  map[int]bool // micro-batches of step done+1 in the accumulator
	reduced   bool
	finished  bool
	broken    bool

	running Action // the long action in flight
}

// New starts a member whose replica has done `done` steps (0: fresh; otherwise: from a checkpoint).
func New(self string, plan Plan, done uint64) *Machine {
	return &Machine{self: self, plan: plan, done: done, saved: done, computed: map[int]bool{}}
}

// Done is the number of steps the replica has done.
func (m *Machine) Done() uint64 { return m.done }

// Over says that nothing more will happen here.
func (m *Machine) Over() bool { return m.finished || m.broken }

// Handle takes one event and returns what to do now, in order; at most one action is long and it is the last.
func (m *Machine) Handle(e Event) []Action {
	var out []Action
	switch e := e.(type) {
	case Leased:
		out = m.leased(e.Lease)
	case StopWanted:
		m.stop = true
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
		if e.Votes > 0 {
			m.stopAt = m.done + 1
		}
	case Applied:
		m.advance(e.Done)
	case Evaluated:
		m.evaluated = e.Done
	case Saved:
		m.saved = e.Done
	case Closed:
		m.finished = true
		m.connected = 0
		return []Action{Disconnect{}}
	case Failed:
		return m.failed(was, e)
	default:
		panic(fmt.Sprintf("step: unexpected event %T", e))
	}
	return nil
}

// advance moves to the next step: its micro-batches are dealt round robin.
func (m *Machine) advance(done uint64) {
	m.done, m.reduced = done, false
	clear(m.computed)
	m.mine = m.mine[:0]
	if m.done >= m.plan.Steps {
		return
	}
	rank, n := m.lease.Rank(m.self), len(m.lease.Members)
	for i := rank; rank >= 0 && i < m.plan.Micros(m.done); i += n {
		m.mine = append(m.mine, i)
	}
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
		return m.work(gen)
	}
}

// work decides what a member in a standing, agreed ring does next.
func (m *Machine) work(gen uint64) []Action {
	last := m.done == m.plan.Steps
	stopping := m.stopAt != 0 && m.done >= m.stopAt
	switch {
	case m.isLost() && (m.evalDue() || !last && !stopping):
		return m.giveUp(m.lost.Suspect, m.lost.Detail)
	case m.evalDue():
		return m.start(Evaluate{Generation: gen, Done: m.done})
	case m.saveDue(last || stopping):
		return m.start(Save{Done: m.done})
	case last:
		return m.start(Finish{})
	case stopping:
		return m.start(Finish{Paused: true})
	case m.done+1 >= m.lease.Until:
		return nil // wait for the renewal
	}
	for _, micro := range m.mine {
		if !m.computed[micro] {
			return m.start(Compute{Done: m.done, Micro: micro})
		}
	}
	return m.start(Reduce{Generation: gen, Done: m.done, VoteStop: m.stop})
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

func (m *Machine) position() Position {
	p := Position{Done: m.done, Evaluated: m.evaluated}
	for i := range m.plan.microsAfter(m.done) {
		if m.computed[i] {
			p.Computed = append(p.Computed, i)
		}
	}
	return p
}

func (p Plan) microsAfter(done uint64) int {
	if done >= p.Steps {
		return 0
	}
	return p.Micros(done)
}

// furthest is the first position that no other is ahead of.
func furthest(all []Position) Position {
	top := all[0]
	for _, p := range all[1:] {
		if p.Done > top.Done {
			top = p
		}
	}
	return top
}

// level says whether all members had done the same steps. After the last step there is no sum in which those that are
// ahead would wait for those that copy from them: they meet once more, or they would be gone before the copy is made.
func level(all []Position) bool {
	for _, p := range all {
		if p.Done != all[0].Done {
			return false
		}
	}
	return true
}

// catchUp takes note that the replica holds the state of top.
func (m *Machine) catchUp(top Position) {
	if m.done != top.Done {
		m.advance(top.Done)
	}
}

// agree takes what every member declared and lays down the common ground of the generation.
func (m *Machine) agree(all []Position) []Action {
	top := furthest(all)
	m.catchUp(top)
	evaluated := top.Done
	for _, p := range all {
		if p.Done == top.Done {
			evaluated = min(evaluated, p.Evaluated)
		}
	}
	m.evaluated = evaluated
	m.synced = top.Done < m.plan.Steps || level(all)
	return m.claim(all, top.Done)
}

// claim takes over this member's share of the first step.
func (m *Machine) claim(all []Position, done uint64) []Action {
	claims := make([][]int, len(all))
	for i, p := range all {
		if p.Done == done {
			claims[i] = p.Computed
		}
	}
	owners, keep := Assign(claims, m.plan.microsAfter(done))
	rank := m.lease.Rank(m.self)
	m.mine = m.mine[:0]
	for micro, owner := range owners {
		if owner == rank {
			m.mine = append(m.mine, micro)
		}
	}
	if keep[rank] {
		return nil
	}
	clear(m.computed)
	return []Action{Discard{}}
}

// Assign deals the micro-batches of a step to members of whom some hold finished ones. A member keeps what it
// has summed unless a member before it holds one of them too: a sum cannot be taken apart, so it then starts
// afresh. What nobody holds is dealt to whoever owes the fewest, lowest rank first.
// owners[micro] is a rank; keep[rank] says that the member's accumulator stands.
func Assign(claims [][]int, micros int) (owners []int, keep []bool) {
	owners = make([]int, micros)
	for i := range owners {
		owners[i] = -1
	}
	keep = make([]bool, len(claims))
	load := make([]int, len(claims))
	for rank, held := range claims {
		keep[rank] = free(owners, held)
		if !keep[rank] {
			continue
		}
		for _, micro := range held {
			owners[micro] = rank
			load[rank]++
		}
	}
	for micro := range owners {
		if owners[micro] >= 0 {
			continue
		}
		least := 0
		for rank := range load {
			if load[rank] < load[least] {
				least = rank
			}
		}
		owners[micro] = least
		load[least]++
	}
	return owners, keep
}

func free(owners []int, held []int) bool {
	for _, micro := range held {
		if micro < 0 || micro >= len(owners) || owners[micro] >= 0 {
			return false
		}
	}
	return true
}
