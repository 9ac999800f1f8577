package sim

import (
	"bytes"
	"maps"
	"slices"

	"lorad/coordinator/state"
	"lorad/node/step"
	"lorad/proto"
)

// checks are the invariants. They know the future: the states that an undisturbed run goes through.
type checks struct {
	w      *World
	hashes map[uint64][32]byte // by log index
	phases map[string]proto.Phase
	ledger map[string][]*proto.StepRecord // as it was when each step was committed
	seen   uint64                         // log entries that some replica has applied
}

const hashEvery = 16 // log entries

func newChecks(w *World) checks {
	return checks{w: w, hashes: map[uint64][32]byte{}, phases: map[string]proto.Phase{}, ledger: map[string][]*proto.StepRecord{}}
}

// graph is the documented graph of phases, written down a second time.
var graph = map[proto.Phase][]proto.Phase{
	proto.Phase_PHASE_UNSPECIFIED: {proto.Phase_PENDING},
	proto.Phase_PENDING:           {proto.Phase_RUNNING, proto.Phase_STOPPED},
	proto.Phase_RUNNING:           {proto.Phase_STOPPING, proto.Phase_STOPPED, proto.Phase_DONE},
	proto.Phase_STOPPING:          {proto.Phase_STOPPED, proto.Phase_DONE},
	proto.Phase_STOPPED:           {proto.Phase_PENDING},
}

// applied looks at a replica that has taken one more entry.
func (c *checks) applied(n *node, cmd *proto.Command, res state.Result, err error) {
	if n.applied%hashEvery == 0 {
		c.replica(n)
	}
	if n.applied <= c.seen {
		return // others have seen it
	}
	c.seen = n.applied
	if err != nil {
		c.w.note(n.id, "entry %d refused: %v", n.applied, err)
	}
	if r := res.Run; r != nil {
		c.run(r)
	}
	if p := cmd.GetReport(); p != nil && err == nil {
		c.w.note("log", "entry %d: %s reports %d steps, checkpoint %d, %s (generation %d); ledger at %d", n.applied, p.Node, len(p.Steps), p.Checkpoint.GetStep(), p.Outcome, p.Generation, res.Run.Step)
		c.acknowledged(p, res.Run)
		if p.Outcome == proto.Outcome_ABORTED {
			c.w.out.Aborts++
		}
	}
	if g := cmd.GetGrantLease(); g != nil && err == nil {
		if res.Run.Lease.GrantedUnixMs == cmd.NowUnixMs {
			c.w.out.Grants++
			if y := res.Run.Yielded; y != 0 && y+1 == res.Run.Lease.Generation {
				c.w.out.Yields++
			}
		}
		c.w.note("log", "entry %d: %s generation %d %v [%d,%d)", n.applied, g.Run, g.Lease.Generation, g.Lease.Members, g.Lease.From, g.Lease.Until)
	}
}

// run: phases move along the graph; the ledger has no gaps and never changes; its digests are those of the
// undisturbed run.
func (c *checks) run(r *proto.Run) {
	id, before := r.Spec.Run, c.phases[r.Spec.Run]
	if r.Phase != before && !slices.Contains(graph[before], r.Phase) {
		c.w.fail("%s went from %s to %s: %s", id, before, r.Phase, r.Reason)
	}
	if before == proto.Phase_RUNNING && r.Phase == proto.Phase_STOPPED {
		c.w.fail("%s was stopped though nobody had asked for it: %s", id, r.Reason)
	}
	if r.Phase != before {
		c.w.note("log", "%s is %s: %s", id, r.Phase, r.Reason)
	}
	c.phases[id] = r.Phase
	known, ledger := c.ledger[id], state.Ledger(r)
	if uint64(len(ledger)) != r.Step || len(ledger) < len(known) {
		c.w.fail("%s: ledger of %d records for %d steps, it had %d", id, len(ledger), r.Step, len(known))
	}
	if k := len(known); k > 0 && ledger[k-1] != known[k-1] {
		c.sameLedger(id, ledger)
	}
	for i := len(known); i < len(ledger); i++ {
		c.record(id, i, ledger[i])
	}
	c.ledger[id] = ledger
	c.w.user(id).done = r.Phase == proto.Phase_DONE
}

// record: what is committed is what an undisturbed run does, and the run ends when it does.
func (c *checks) record(id string, i int, s *proto.StepRecord) {
	l := &c.w.user(id).life
	if i+1 >= len(l.states) {
		c.w.fail("%s: step %d is committed, but the run ends after step %d", id, i+1, l.end)
	}
	if s.Step != uint64(i)+1 || s.Digest != l.states[i+1].hash {
		c.w.fail("%s: record %d is of step %d with digest %016x of %s", id, i+1, s.Step, s.Digest, s.Node)
	}
	if last := s.Step == l.end && l.end < l.plan.Steps; s.Last && s.Step != l.end || last && !s.Last {
		c.w.fail("%s: record %d says of itself that it is the last: %v; the run ends after step %d", id, i+1, s.Last, l.end)
	}
	if l.plan.EvalAfter(s.Step) && s.EvalLoss != l.states[i+1].loss() {
		c.w.fail("%s: the validation loss after step %d is %v of %s, not %v", id, s.Step, s.EvalLoss, s.Node, l.states[i+1].loss())
	}
}

// sameLedger: another replica's records are other objects with the same contents.
func (c *checks) sameLedger(id string, ledger []*proto.StepRecord) {
	for i, s := range c.ledger[id] {
		o := ledger[i]
		if o.Step != s.Step || o.Digest != s.Digest || o.Generation != s.Generation || o.Node != s.Node {
			c.w.fail("%s: committed step %d has changed", id, i+1)
		}
	}
}

// replica: equal index, equal hash.
func (c *checks) replica(n *node) {
	h, err := n.machine.Hash()
	if err != nil {
		c.w.fail("%s: %v", n.id, err)
	}
	if known, ok := c.hashes[n.applied]; ok && known != h {
		c.w.fail("%s: replicas of the coordinator differ at entry %d", n.id, n.applied)
	}
	c.hashes[n.applied] = h
}

// acknowledged: from now on this checkpoint, or a later one that the ledger knows, can be restored from that disk.
func (c *checks) acknowledged(p *proto.Report, r *proto.Run) {
	k := p.Checkpoint
	if k == nil || !slices.ContainsFunc(r.Checkpoints, func(o *proto.Checkpoint) bool { return o.Step == k.Step && slices.Contains(o.Nodes, p.Node) }) {
		return
	}
	if !bytes.Equal(k.Sha256, digest(c.w.user(p.Run).life.states[k.Step])) {
		c.w.fail("%s: the checkpoint of step %d holds another state", p.Node, k.Step)
	}
	n := c.w.node(p.Node)
	d := n.disk(p.Run)
	if d.lost < k.Step {
		d.acked = max(d.acked, k.Step)
	}
	c.durable(n, p.Run)
}

// durable: what was acknowledged can be restored.
func (c *checks) durable(n *node, run string) {
	d := n.disk(run)
	committed := uint64(len(c.ledger[run]))
	r, _ := d.restore(committed)
	if r.done < d.acked {
		c.w.fail("%s: %s acknowledged the checkpoint of step %d, but from its disk only step %d can be restored (ledger at %d)", run, n.id, d.acked, r.done, committed)
	}
}

// holds: one state per step, ever, on any member.
func (c *checks) holds(run string, r replica, who string) {
	if want := c.w.user(run).life.states[r.done].hash; r.hash != want {
		c.w.fail("%s: %s holds %016x after step %d, an undisturbed run %016x", run, who, r.hash, r.done, want)
	}
}

// leased: a step is made by a member, below the end of the lease that it heard.
func (c *checks) leased(k *worker, a step.Apply) {
	if k.heard.Rank(k.n.id) < 0 || a.Done+1 >= k.best {
		c.w.fail("%s: %s makes step %d under generation %d %v, whose end is %d", k.id, k.n.id, a.Done+1, k.heard.Generation, k.heard.Members, k.best)
	}
}

// computes: the gradient is of the replica's own step, and not summed twice.
func (c *checks) computes(k *worker, a step.Compute) {
	if a.Done != k.replica.done || slices.Contains(k.accum, part{a.Done, a.Micro}) {
		c.w.fail("%s: %s computes %+v at step %d with %v summed", k.id, k.n.id, a, k.replica.done, k.accum)
	}
}

// covers: a sum counts each micro-batch of its step exactly once.
func (c *checks) covers(k *worker, done uint64, sum []part) {
	if !slices.Equal(sum, whole(done, len(k.life.plan.Work(done)))) {
		c.w.fail("%s: the sum of step %d at %s is made of %v", k.id, done+1, k.n.id, sum)
	}
}

// validates: each micro-batch of the validation set comes from one member.
func (c *checks) validates(k *worker, all []contribution) {
	var got []int
	for _, x := range all {
		got = append(got, x.micros...)
	}
	slices.Sort(got)
	for i := range k.life.plan.Val {
		if len(got) != len(k.life.plan.Val) || got[i] != i {
			c.w.fail("%s: the validation loss at %s is made of %v", k.id, k.n.id, got)
		}
	}
}

// applies: the machine knows which step its replica is at.
func (c *checks) applies(k *worker, a step.Apply) {
	if a.Done != k.replica.done {
		c.w.fail("%s: %s applies step %d to a replica at step %d", k.id, k.n.id, a.Done+1, k.replica.done)
	}
}

// honest: what a member tells the others is so.
func (c *checks) honest(k *worker, p step.Position) {
	if p.Done != k.replica.done {
		c.w.fail("%s: %s says that its replica is at step %d, but it is at step %d", k.id, k.n.id, p.Done, k.replica.done)
	}
}

func (c *checks) committed() uint64 {
	var n uint64
	for _, l := range c.ledger {
		n += uint64(len(l))
	}
	return n
}

// final: every run ended with the state of an undisturbed one, and all replicas that caught up are equal.
func (c *checks) final() {
	for _, n := range c.w.nodes {
		if n.up {
			n.applyAll()
			c.replica(n)
		}
	}
	for _, u := range c.w.users {
		r := c.w.log.leader.machine.Run(u.run)
		steps := u.life.end
		for done := range steps {
			c.w.out.Owed += uint64(len(u.life.plan.Work(done)))
		}
		if r.Step != steps || !bytes.Equal(r.AdapterSha256, digest(u.life.states[steps])) {
			c.w.fail("%s ended at step %d of %d with another adapter", u.run, r.Step, steps)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.ledger)) {
		for _, n := range c.w.nodes {
			c.durable(n, id)
		}
	}
}
