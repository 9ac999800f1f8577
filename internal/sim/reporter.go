package sim

import (
	"lorad/coordinator/state"
	"lorad/proto"
)

// Times of node's reporter.
const (
	reportEvery  = 200 * ms
	reportLate   = 3 * second
	drainTimeout = 20 * second
	outputAgain  = 2 * second
	drainPause   = 5 * ms
	reportMost   = 512
)

// reporter is node's: the first member of the ring speaks for all, the others compare with the ledger.
type reporter struct {
	k       *worker
	pending []*proto.StepRecord
	held    *proto.StepRecord
	saved   []*proto.Checkpoint
	lead    bool
	member  bool // of the newest lease: the others would be refused
	since   int64
	hurry   bool
	busy    bool // in the middle of a round
	again   bool // woken meanwhile
}

func (r *reporter) start() {
	r.round()
	r.k.after(reportEvery, r.start)
}

func (r *reporter) round() {
	if r.busy {
		r.again = true
		return
	}
	r.busy, r.again = true, false
	r.send(false, func(err error) {
		if err != nil {
			r.rest()
			return
		}
		r.sendSaved(func(error) { r.rest() })
	})
}

func (r *reporter) rest() {
	r.busy = false
	if r.again {
		r.k.after(ms/10, r.round)
	}
}

func (r *reporter) wakeUp() { r.k.after(ms/10, r.round) }

func (r *reporter) add(s *proto.StepRecord, hold bool) {
	if hold {
		r.held = s
		return
	}
	r.push(s)
}

func (r *reporter) push(s *proto.StepRecord) {
	if len(r.pending) == 0 {
		r.since = r.k.n.w.now
	}
	r.pending = append(r.pending, s)
}

func (r *reporter) evaluated(done uint64, loss float64, last bool) {
	if r.held == nil || r.held.Step != done {
		return
	}
	r.held.EvalLoss, r.held.Last = loss, last
	r.push(r.held)
	r.held = nil
}

func (r *reporter) durable(c *proto.Checkpoint) {
	r.saved = append(r.saved, c)
	r.wakeUp()
}

func (r *reporter) flush() {
	r.hurry = true
	r.wakeUp()
}

// drain calls done when every step and checkpoint up to the last is in the ledger.
func (r *reporter) drain(deadline int64, done func(error)) {
	r.send(true, func(err error) {
		if err == nil {
			r.sendSaved(func(err error) { r.drained(deadline, err, done) })
			return
		}
		r.drained(deadline, err, done)
	})
}

func (r *reporter) drained(deadline int64, err error, done func(error)) {
	pause := int64(drainPause)
	switch {
	case err != nil && r.k.n.w.now > deadline:
		done(err)
		return
	case err != nil:
		pause = reportEvery
	case len(r.pending)+len(r.saved) == 0:
		done(nil)
		return
	}
	r.k.after(pause, func() { r.drain(deadline, done) })
}

// adopt takes over the records of a donor: a member that holds a state without the records of its steps could neither
// report nor finish once the donor is gone.
func (r *reporter) adopt(donor *reporter) {
	if r.k.bug() == NoRecords {
		return
	}
	r.pending = append([]*proto.StepRecord(nil), donor.pending...)
	r.held = donor.held
	r.since = r.k.n.w.now
}

// send reports one batch, if it is this member's turn to, or force.
func (r *reporter) send(force bool, done func(error)) {
	r.settle()
	due := len(r.pending) > 0 && r.member && (force || r.lead || r.hurry || r.k.n.w.now-r.since > reportLate)
	r.hurry = false
	if !due {
		done(nil)
		return
	}
	batch := append([]*proto.StepRecord(nil), r.pending[:min(len(r.pending), reportMost)]...)
	r.k.report(&proto.Report{Steps: batch}, func(err error) {
		if err == nil {
			r.drop(batch[len(batch)-1].Step)
		}
		done(err)
	})
}

// sendSaved reports the checkpoints whose step is in the ledger.
func (r *reporter) sendSaved(done func(error)) {
	if len(r.saved) == 0 || r.saved[0].Step > r.k.n.machine.Run(r.k.id).GetStep() {
		done(nil)
		return
	}
	next := r.saved[0]
	r.k.report(&proto.Report{Checkpoint: next}, func(err error) {
		if err != nil {
			done(err)
			return
		}
		if len(r.saved) > 0 && r.saved[0] == next {
			r.saved = r.saved[1:]
		}
		r.sendSaved(done)
	})
}

// settle drops what the ledger has, after comparing it.
func (r *reporter) settle() {
	if len(r.pending) == 0 {
		return
	}
	run := r.k.n.machine.Run(r.k.id)
	if run == nil {
		return
	}
	for _, s := range r.pending {
		if s.Step <= run.Step && state.Ledger(run)[s.Step-1].Digest != s.Digest {
			r.k.n.w.fail("%s differs from the ledger after step %d", r.k.n.id, s.Step)
		}
	}
	r.drop(run.Step)
}

func (r *reporter) drop(upTo uint64) {
	i := 0
	for i < len(r.pending) && r.pending[i].Step <= upTo {
		i++
	}
	if i == 0 {
		return // what is pending is as old as it was
	}
	r.pending = r.pending[i:]
	r.since = r.k.n.w.now
}
