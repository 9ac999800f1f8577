package sim

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"lorad/node/step"
	"lorad/proto"
)

// volunteer is node's.
func (k *worker) volunteer() {
	generation := k.latest.Lease.GetGeneration()
	if !outside(k.latest, k.n.id) || k.offered == generation || k.n.machine.Node(k.n.id).GetDrain() != nil {
		return
	}
	k.offered = generation
	k.report(&proto.Report{Generation: generation, Outcome: proto.Outcome_READY, Boot: bootName(k.n.boot)}, nil)
}

// yielded is node's.
func (k *worker) yielded(a step.ReportYielded) {
	steps := slices.Clone(k.reports.pending[:min(len(k.reports.pending), reportMost)])
	k.report(&proto.Report{Generation: a.Generation, Outcome: proto.Outcome_YIELDED, Steps: steps}, func(err error) {
		if err != nil {
			k.report(&proto.Report{Generation: a.Generation, Outcome: proto.Outcome_YIELDED}, nil)
		}
	})
}

// broken tells the coordinator that the run cannot go on here. The invariants allow no run to fail: what is reported
// here must come to nothing.
func (k *worker) broken(why string) {
	k.n.w.note(k.n.id, "%s: broken: %s", k.id, why)
	k.breaking = true
	r := &proto.Report{Generation: k.lease.Generation, Outcome: proto.Outcome_BROKEN, Detail: why}
	k.report(r, func(error) {
		k.ending = true
		k.end(k.lease.Generation)
	})
}

func digest(r replica) []byte {
	b := make([]byte, 32)
	binary.LittleEndian.PutUint64(b, r.hash)
	binary.LittleEndian.PutUint64(b[8:], r.done)
	binary.LittleEndian.PutUint64(b[16:], math.Float64bits(r.now.Loss))
	binary.LittleEndian.PutUint64(b[24:], r.now.Step<<32|r.now.Seen<<16|r.now.Waited)
	return b
}

func (k *worker) save(a step.Save) step.Event {
	d := k.n.disk(k.id)
	switch {
	case !k.n.full():
		d.save(k.replica)
	case k.bug() != AcksUnsaved:
		k.n.w.note(k.n.id, "%s: no room for the checkpoint of step %d", k.id, k.replica.done)
		return step.Saved(a)
	}
	d.rotate(k.life.keep, k.latest.Step, k.bug())
	k.n.w.checks.durable(k.n, k.id)
	k.reports.durable(&proto.Checkpoint{Step: k.replica.done, Sha256: digest(k.replica), Nodes: []string{k.n.id}})
	return step.Saved(a)
}

// finish reports the rest and says how this member's part ended.
func (k *worker) finish(o *op, a step.Finish) {
	if k.n.full() && !a.Paused && k.latest.HomeNode() == k.n.id { // it waits for room; the others need not write
		o.interrupt = func() { k.answer(o, step.Failed{}) }
		k.after(outputAgain, func() {
			if k.op == o {
				k.finish(o, a)
			}
		})
		return
	}
	r := &proto.Report{Outcome: proto.Outcome_PAUSED}
	if !a.Paused {
		r = &proto.Report{Outcome: proto.Outcome_FINISHED, AdapterSha256: digest(k.replica)}
	}
	r.Generation = k.lease.Generation                   // what a later generation does is for others to say
	o.interrupt = func() { k.answer(o, step.Failed{}) } // only the end of the worker interrupts
	failed := func(err error) { k.answer(o, step.Failed{Detail: err.Error()}) }
	k.reports.drain(k.n.w.now+drainTimeout, func(err error) {
		if err != nil {
			failed(fmt.Errorf("report steps: %w", err))
			return
		}
		if k.n.full() && !a.Paused { // it has no output to speak of; the home node has
			k.answer(o, step.Closed{})
			return
		}
		k.report(r, func(err error) {
			if err != nil {
				failed(err)
				return
			}
			k.answer(o, step.Closed{})
		})
	})
}

// report fills in who speaks of what, and sends. done may be nil.
func (k *worker) report(r *proto.Report, done func(error)) {
	r.Run, r.Node = k.id, k.n.id
	if r.Generation == 0 {
		r.Generation = k.latest.Lease.GetGeneration()
	}
	k.n.apply(&proto.Command{Do: &proto.Command_Report{Report: r}}, k.alive, func(reply *proto.ApplyReply, refusal error) {
		if refusal == nil && reply.Stale {
			refusal = fmt.Errorf("generation %d is over", r.Generation)
		}
		if refusal != nil {
			k.n.w.note(k.n.id, "%s: report was not taken: %v", k.id, refusal)
		}
		if done != nil && !k.over {
			done(refusal)
		}
	})
}

func (k *worker) describe() string {
	s := fmt.Sprintf("worker at step %d", k.replica.done)
	if k.op != nil {
		s += fmt.Sprintf(" in %T%+v", k.op.action, k.op.action)
	}
	if len(k.reports.pending) > 0 {
		s += fmt.Sprintf(", %d steps not in the ledger, from %d on", len(k.reports.pending), k.reports.pending[0].Step)
	}
	if k.machine != nil && k.machine.Over() {
		s += ", over"
	}
	return s
}
