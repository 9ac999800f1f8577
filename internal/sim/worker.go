package sim

import (
	"maps"
	"slices"

	"lorad/node/step"
	"lorad/proto"
)

// worker is node.worker without its engine: it carries the machine's actions out, one long one at a time, and says
// what came of them.
type worker struct {
	n    *node
	id   string
	life life
	home bool

	latest  *proto.Run
	told    bool // latest is on its way to the machine
	offered uint64

	machine *step.Machine
	lease   step.Lease // of the ring
	heard   step.Lease // by the machine
	best    uint64     // the furthest end of a lease that was heard here
	ring    *ring
	op      *op
	ending  bool
	over    bool

	breaking bool   // the run, as far as this member knows
	last     uint64 // generation in which the run was over

	replica replica
	accum   []part
	took    map[int]int64 // microseconds, by micro-batch in accum
	sum     []part
	record  *proto.StepRecord
	began   int64
	reports reporter
}

// op is a long action in flight.
type op struct {
	action    step.Action
	cancelled bool
	interrupt func() // what Cancel does; nil: it is not noticed
}

func newWorker(n *node, r *proto.Run) *worker {
	k := &worker{n: n, id: r.Spec.Run, life: n.w.user(r.Spec.Run).life, home: r.HomeNode() == n.id, latest: r, began: n.w.now}
	k.reports.k = k
	n.w.note(n.id, "%s: prepares for generation %d", k.id, r.Lease.Generation)
	n.after(n.w.rng.span(20*ms, 400*ms), k.prepare)
	return k
}

func (w *World) user(run string) *user {
	for _, u := range w.users {
		if u.run == run {
			return u
		}
	}
	return nil
}

// tell hands over what the coordinator says; only the newest word counts.
func (k *worker) tell(r *proto.Run) {
	k.latest = r
	if k.told || k.machine == nil {
		return
	}
	k.told = true
	k.after(k.n.w.rng.span(0, ms), func() { k.told = false; k.news() })
}

func (k *worker) after(d int64, f func()) {
	k.n.after(d, func() {
		if !k.over {
			f()
		}
	})
}

func (k *worker) alive() bool { return !k.over }

// prepare fetches the inputs and restores the newest checkpoint that the ledger knows of.
func (k *worker) prepare() {
	d := k.n.disk(k.id)
	if !d.inputs && !k.fetch() && outside(k.latest, k.n.id) {
		k.after(againAfter, k.prepare)
		return
	}
	if !d.inputs && !k.fetch() {
		k.n.w.note(k.n.id, "%s: cannot prepare", k.id)
		if k.home {
			k.n.w.fail("%s lost the inputs at home", k.n.id)
		}
		gen := k.latest.Lease.GetGeneration()
		k.report(&proto.Report{Generation: gen, Outcome: proto.Outcome_ABORTED, Suspect: k.n.id, Detail: "no inputs"}, func(error) { k.end(gen) })
		return
	}
	d.inputs = true
	k.replica = k.life.states[0]
	if r, ok := d.restore(k.latest.Step); ok {
		k.replica = r
	}
	k.machine = step.New(k.n.id, k.life.plan, k.replica.done)
	k.n.w.note(k.n.id, "%s: begins at step %d (ledger at %d)", k.id, k.replica.done, k.latest.Step)
	k.accumFor()
	k.reports.start()
	k.news()
}

func (k *worker) fetch() bool {
	for _, o := range k.n.w.nodes {
		if o != k.n && k.n.reaches(o) && o.disk(k.id).inputs {
			return true
		}
	}
	return false
}

// news is what drive does when it was told something.
func (k *worker) news() {
	if k.ending || k.breaking {
		return
	}
	switch k.latest.Phase {
	case proto.Phase_DONE, proto.Phase_FAILED, proto.Phase_STOPPED:
		k.ending, k.last = true, k.latest.Lease.GetGeneration()
		k.cancel()
		if k.over {
			return
		}
		if k.op == nil {
			k.end(k.last)
		}
		return
	}
	k.perform(k.hear())
	k.volunteer()
}

// hear turns the coordinator's latest word into events.
func (k *worker) hear() []step.Action {
	r := k.latest
	l := r.Lease
	k.reports.lead = len(l.Members) > 0 && l.Members[0] == k.n.id
	k.reports.member = slices.Contains(l.Members, k.n.id)
	k.best = max(k.best, l.Until)
	var out []step.Action
	if r.Phase == proto.Phase_STOPPING {
		out = k.machine.Handle(step.StopWanted{})
	}
	k.heard = step.Lease{Generation: l.Generation, Members: l.Members, Until: l.Until}
	out = append(out, k.machine.Handle(step.Leased{Lease: k.heard})...)
	if k.n.machine.Node(k.n.id).GetDrain() != nil {
		out = append(out, k.machine.Handle(step.LeaveWanted{})...)
	}
	return out
}

func (k *worker) cancel() {
	if k.op != nil && !k.op.cancelled {
		k.op.cancelled = true
		if k.op.interrupt != nil {
			k.op.interrupt()
		}
	}
}

func (k *worker) perform(actions []step.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case step.Cancel:
			k.cancel()
		case step.Disconnect:
			if k.machine.Over() && !k.breaking {
				k.leaveRing(inOrder)
			} else {
				k.leaveRing("it left")
			}
		case step.Discard:
			if k.bug() != KeepDiscarded {
				k.empty()
			}
		case step.ReportAborted:
			k.n.w.note(k.n.id, "%s: gives generation %d up, suspects %q: %s", k.id, a.Generation, a.Suspect, a.Detail)
			k.reports.flush()
			k.report(&proto.Report{Generation: a.Generation, Outcome: proto.Outcome_ABORTED, Suspect: a.Suspect, Detail: a.Detail}, nil)
		case step.ReportYielded:
			k.n.w.note(k.n.id, "%s: generation %d stands between two steps", k.id, a.Generation)
			k.yielded(a)
		case step.ReportBroken:
			k.broken(a.Detail)
		default:
			k.begin(a)
		}
	}
	if k.machine.Over() && k.op == nil && !k.ending && !k.breaking {
		k.ending = true
		k.end(k.lease.Generation)
	}
}

// end is the last thing a worker does. It is not started again in the generation that it ended in, but may be in one
// that it has heard of since.
func (k *worker) end(generation uint64) {
	k.leaveRing(inOrder)
	k.after(k.n.w.delay(), func() {
		k.over = true
		delete(k.n.workers, k.id)
		k.n.ended[k.id] = generation
		if k.bug() == LateEnd {
			k.n.ended[k.id] = k.latest.Lease.GetGeneration()
		}
		k.n.w.note(k.n.id, "%s: worker ends in generation %d at step %d", k.id, k.n.ended[k.id], k.replica.done)
		k.n.look()
	})
}

// begin starts a long action.
func (k *worker) begin(a step.Action) {
	o := &op{action: a}
	k.op = o
	w := k.n.w
	switch a := a.(type) {
	case step.Connect:
		k.connect(o, a)
	case step.Sync:
		k.sync(o, a)
	case step.Compute:
		d := k.n.pace() * int64(k.life.plan.Work(a.Done)[a.Micro]) / meanTokens
		k.wait(o, d, func() step.Event { return k.compute(a, d) })
	case step.Reduce:
		k.collective(o, opKey{kindGradient, a.Done}, contribution{parts: k.accum, took: k.took, vote: a.VoteStop, leave: a.VoteLeave}, func(all []contribution) step.Event { return k.reduced(a, all) })
	case step.Apply:
		w.checks.leased(k, a)
		k.wait(o, k.life.applyIn, func() step.Event { return k.apply(a) })
	case step.Evaluate:
		k.after(w.rng.span(ms, 30*ms), func() {
			k.collective(o, opKey{kindEvaluation, a.Done}, contribution{micros: a.Micros}, func(all []contribution) step.Event { return k.evaluated(a, all) })
		})
	case step.Save:
		k.wait(o, k.n.diskDelay(60*ms), func() step.Event { return k.save(a) })
	case step.Finish:
		k.after(k.n.diskDelay(60*ms), func() { k.finish(o, a) })
	}
}

func (k *worker) wait(o *op, d int64, f func() step.Event) {
	k.after(d, func() { k.answer(o, f()) })
}

// answer feeds the result of a long action back.
func (k *worker) answer(o *op, e step.Event) {
	if k.over || k.op != o {
		return
	}
	k.op = nil
	if k.ending {
		k.end(k.last)
		return
	}
	k.perform(k.machine.Handle(e))
}

func linkFailed(suspect, detail string) step.Failed {
	return step.Failed{Link: true, Suspect: suspect, Detail: detail}
}

// accumFor makes the accumulator ready for the next step.
func (k *worker) accumFor() {
	k.record = &proto.StepRecord{}
	if k.bug() != StaleAccumulator || k.replica.done%7 != 3 {
		k.empty()
	}
}

func (k *worker) empty() { k.accum, k.took = nil, map[int]int64{} }

func (k *worker) bug() Bug { return k.n.w.cfg.Bug }

func (k *worker) compute(a step.Compute, took int64) step.Event {
	k.n.w.checks.computes(k, a)
	k.n.w.out.Computed++
	k.took = maps.Clone(k.took) // a sum may still be reading it
	k.took[a.Micro] = took
	k.accum = append(k.accum[:len(k.accum):len(k.accum)], part{a.Done, a.Micro})
	return step.Computed{Micro: a.Micro}
}

func (k *worker) reduced(a step.Reduce, all []contribution) step.Event {
	var parts [][]part
	e := step.Reduced{Took: make([]int64, len(k.life.plan.Work(a.Done)))}
	for _, c := range all {
		parts = append(parts, c.parts)
		if c.vote {
			e.Votes++
		}
		if c.leave {
			e.Leaves++
		}
		for i := range e.Took {
			e.Took[i] += c.took[i]
		}
	}
	k.sum = add(parts)
	k.n.w.out.Sums++
	if k.bug() == PartialSum && k.n.w.rng.between(0, 200) == 0 {
		k.sum = k.sum[1:]
	} else {
		k.n.w.checks.covers(k, a.Done, k.sum)
	}
	return e
}

func (k *worker) apply(a step.Apply) step.Event {
	k.n.w.checks.applies(k, a)
	k.replica = k.replica.step(k.sum)
	k.n.w.out.Made++
	k.n.w.checks.holds(k.id, k.replica, k.n.id)
	r, now := k.record, k.n.w.now
	r.Step, r.Generation, r.Digest = a.Done+1, k.lease.Generation, k.replica.hash
	r.Loss = float64(k.replica.hash>>40) / 1024
	r.Tokens, r.TotalTokens = uint64(len(k.sum)), 2*uint64(len(k.sum))
	r.DurationUs = uint64(now - k.began)
	k.began = now
	k.reports.add(r, k.life.plan.EvalAfter(a.Done+1))
	k.accumFor()
	return step.Applied{Done: a.Done + 1}
}

func (k *worker) evaluated(a step.Evaluate, all []contribution) step.Event {
	k.n.w.checks.validates(k, all)
	k.replica = k.replica.observe(k.life.rule)
	last := k.life.rule.Over(k.replica.now)
	k.reports.evaluated(a.Done, k.replica.loss(), last)
	return step.Evaluated{Done: a.Done, Last: last}
}
