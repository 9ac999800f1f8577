package sim

import (
	"lorad/coordinator/sched"
	"lorad/coordinator/state"
	"lorad/proto"
)

// How Raft behaves, in the range of hashicorp/raft with its default times.
const (
	leaseTimeout    = 500 * ms // a leader that reaches no majority for so long steps down
	electionLeast   = 500 * ms
	electionMost    = 2 * second
	heartbeat       = 100 * ms
	snapshotEvery   = 40 // entries, at most
	installedBehind = 60 // entries behind which a follower is sent a snapshot
)

// replicated is an idealised Raft: a log that only grows, and at most one leader per term who can make it grow, as long
// as it reaches a majority. Older leaders may go on believing in themselves; what they propose comes to nothing, or
// was adopted by the next leader, and they never learn which.
type replicated struct {
	w       *World
	entries []*proto.Command
	term    uint64
	leader  *node // of the newest term
	vacant  int64 // since when nobody can lead; 0 = somebody does
	patient int64 // how long the next election takes
}

// reign is one term as the leader, as the leader itself sees it.
type reign struct {
	term    uint64
	queue   []*proposal
	writing bool
	contact int64 // when a majority was last reached
	busy    bool  // in the middle of a round of decisions
	probed  map[string]uint64
}

// proposal is a command on its way into the log.
type proposal struct {
	command *proto.Command

	done func(index uint64, res state.Result, refusal error, lost bool)
}

// watch looks for a leader every now and then.
func (l *replicated) watch() {
	l.elect()
	l.w.after(heartbeat/2, l.watch)
}

func (l *replicated) elect() {
	if l.leader != nil && l.leader.up && !l.leader.frozen && l.leader.majority() && l.leader.reign != nil {
		l.vacant = 0
		return
	}
	if l.vacant == 0 {
		l.vacant, l.patient = l.w.now, l.w.rng.span(electionLeast, electionMost)
	}
	if l.w.now-l.vacant < l.patient {
		return
	}
	var able []*node
	for _, n := range l.w.nodes {
		if n.up && !n.frozen && n.majority() {
			able = append(able, n)
		}
	}
	if len(able) > 0 {
		l.crown(pick(&l.w.rng, able))
	}
}

// crown makes n the leader of a new term. Of what the old leader had proposed, a prefix may have reached it.
func (l *replicated) crown(n *node) {
	l.term++
	l.vacant = 0
	if old := l.leader; old != nil && old != n && old.reign != nil {
		l.adopt(old.reign.queue)
	}
	if n.reign != nil {
		n.stepDown()
	}
	l.leader = n
	n.applyAll()
	n.reign = &reign{term: l.term, contact: l.w.now, probed: map[string]uint64{}}
	l.w.note(n.id, "leads term %d from entry %d on", l.term, len(l.entries))
	n.beat(n.reign)
}

func (l *replicated) adopt(queue []*proposal) {
	for _, p := range queue[:l.w.rng.between(0, len(queue))] {
		l.entries = append(l.entries, p.command)
		l.w.note("log", "a proposal of the old leader was committed after all: %s", kindOf(p.command))
	}
}

// propose puts a command into the log, if n leads for long enough.
func (n *node) propose(c *proto.Command, done func(uint64, state.Result, error, bool)) {
	r := n.reign
	if r == nil {
		done(0, state.Result{}, nil, true)
		return
	}
	stamped := &proto.Command{NowUnixMs: n.clock(), Do: c.Do}
	r.queue = append(r.queue, &proposal{command: stamped, done: done})
	n.write(r)
}

// write gets the queue to a majority.
func (n *node) write(r *reign) {
	if r.writing || len(r.queue) == 0 {
		return
	}
	r.writing = true
	n.after(n.w.rng.span(ms, 8*ms)+n.diskDelay(20*ms), func() { n.commit(r) })
}

func (n *node) commit(r *reign) {
	r.writing = false
	l := &n.w.log
	if n.reign != r {
		return
	}
	if r.term != l.term || !n.majority() {
		n.after(20*ms, func() { n.write(r) })
		return
	}
	batch := r.queue
	r.queue = nil
	for _, p := range batch {
		l.entries = append(l.entries, p.command)
		res, err := n.applyNext()
		p.done(uint64(len(l.entries)), res, err, false)
	}
	for _, o := range n.w.nodes {
		if o != n {
			o.after(n.w.delay(), o.pull)
		}
	}
	if n.reign == r {
		n.write(r)
	}
}

// stepDown ends a reign; what was proposed and not committed is lost, or is not: nobody can say.
func (n *node) stepDown() {
	r := n.reign
	n.reign = nil
	n.w.note(n.id, "leads no longer (term %d, %d proposals open)", r.term, len(r.queue))
	for _, p := range r.queue {
		p.done(0, state.Result{}, nil, true)
	}
}

// beat is the leader's clock: it keeps in touch, steps down without a majority, and decides.
func (n *node) beat(r *reign) {
	if n.reign != r {
		return
	}
	l := &n.w.log
	if n.majority() {
		r.contact = n.w.now
	}
	if n.w.now-r.contact > leaseTimeout || r.term != l.term && l.leader != nil && n.w.wires.both(n, l.leader) {
		n.stepDown()
		return
	}
	if r.term == l.term {
		for _, o := range n.w.nodes {
			if o != n && o.applied < uint64(len(l.entries)) {
				o.after(n.w.delay(), o.pull)
			}
		}
	}
	n.decide()
	n.after(heartbeat, func() { n.beat(r) })
}

// majority says whether n reaches more than half of the nodes, itself included, there and back.
func (n *node) majority() bool {
	reached := 0
	for _, o := range n.w.nodes {
		if o.up && !o.frozen && n.w.wires.both(n, o) {
			reached++
		}
	}
	return 2*reached > len(n.w.nodes)
}

// pull applies what the leader has sent.
func (n *node) pull() {
	l := &n.w.log
	if l.leader == nil || n.reign != nil || l.leader.reign == nil || l.leader.reign.term != l.term || !n.w.wires.both(n, l.leader) || !l.leader.up {
		return
	}
	if behind := uint64(len(l.entries)) - n.applied; behind > installedBehind && l.leader.snapshot != nil && l.leader.snapshotAt > n.applied {
		n.install(l.leader.snapshot, l.leader.snapshotAt)
	}
	n.applyAll()
}

func (n *node) applyAll() {
	for n.applied < uint64(len(n.w.log.entries)) {
		n.applyNext()
	}
}

func (n *node) applyNext() (state.Result, error) {
	// The new leader may have to catch up first: its own entry is the last one.
	for n.applied+1 < uint64(len(n.w.log.entries)) {
		n.applyOne()
	}
	return n.applyOne()
}

func (n *node) applyOne() (state.Result, error) {
	c := n.w.log.entries[n.applied]
	res, err := n.machine.Apply(c)
	n.applied++
	n.w.checks.applied(n, c, res, err)
	if n.w.rng.between(1, snapshotEvery) == 1 {
		n.takeSnapshot()
	}
	n.replicaChanged()
	return res, err
}

func (n *node) takeSnapshot() {
	b, err := n.machine.Snapshot()
	if err != nil {
		n.w.fail("%s: %v", n.id, err)
	}
	n.snapshot, n.snapshotAt = b, n.applied
}

// install replaces the replica by a snapshot.
func (n *node) install(b []byte, index uint64) {
	m := state.New()
	if err := m.Restore(b); err != nil {
		n.w.fail("%s: %v", n.id, err)
	}
	n.machine, n.applied = m, index
	n.w.out.Snapshots++
	n.w.checks.replica(n)
	n.replicaChanged()
}

// decide is the leader's round: ask silent members, look, propose.
func (n *node) decide() {
	r := n.reign
	if r == nil || r.busy {
		return
	}
	r.busy = true
	view := sched.Look(n.machine)
	if wait := n.probe(r, view.Runs); wait > 0 {
		n.after(wait, func() { n.endRound(r); n.decide() })
		return
	}
	n.carryOut(r, sched.Next(view, n.liveness(), n.clock()))
}

func (n *node) endRound(r *reign) { r.busy = false }

// probe asks the members of a generation that was given up whether they are alive, once, and says how long that takes.
func (n *node) probe(r *reign, runs []*proto.Run) int64 {
	var wait int64
	for _, run := range runs {
		gen := run.Trouble.GetGeneration()
		if !state.Leased(run.Phase) || gen == 0 || gen != run.Lease.Generation || r.probed[run.Spec.Run] == gen {
			continue
		}
		r.probed[run.Spec.Run] = gen
		for _, id := range run.Lease.Members {
			wait = max(wait, n.ping(n.w.node(id)))
		}
	}
	return wait
}

// carryOut proposes decisions one after the other and gives up the round at the first one that fails.
func (n *node) carryOut(r *reign, todo []sched.Decision) {
	for len(todo) > 0 && todo[0].Command == nil {
		todo = todo[1:]
	}
	if len(todo) == 0 || n.reign != r {
		n.endRound(r)
		return
	}
	d := todo[0]
	n.propose(d.Command, func(_ uint64, _ state.Result, refusal error, lost bool) {
		if lost || refusal != nil {
			n.w.note(n.id, "decision not carried out: %s: %v", d.Reason, refusal)
			n.endRound(r)
			return
		}
		n.w.note(n.id, "decided for %s: %s", d.Run, d.Reason)
		n.carryOut(r, todo[1:])
	})
}

func kindOf(c *proto.Command) string {
	switch do := c.Do.(type) {
	case *proto.Command_Report:
		return "report of " + do.Report.Node
	case *proto.Command_GrantLease:
		return "lease"
	case *proto.Command_StopRun:
		return "stop"
	case *proto.Command_ResumeRun:
		return "resume"
	case *proto.Command_DrainNode:
		return "drain"
	case *proto.Command_SubmitRun:
		return "submit"
	}
	return "node"
}
