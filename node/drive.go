package node

import (
	"context"
	"errors"

	"lorad/node/step"
)

// driver carries the machine's actions out and feeds what came of them back, one long action at a time.
type driver struct {
	*worker
	ctx     context.Context
	answers chan step.Event
	busy    bool            // a long action is under way
	cancel  func()          // cancels it
	lost    <-chan struct{} // closed when the ring is dead; nil while there is none
}

func (w *worker) drive(ctx context.Context) {
	d := driver{worker: w, ctx: ctx, answers: make(chan step.Event, 1), cancel: func() {}}
	defer d.end()
	for d.hear(); !w.machine.Over(); {
		select {
		case e := <-d.answers:
			d.answered(e)
		case <-w.news:
			if terminal(w.heard().Phase) {
				return
			}
			d.hear()
		case <-d.lost:
			d.lost = nil
			d.perform(w.machine.Handle(w.ringLost()))
		case <-ctx.Done():
			return
		}
	}
}

// hear takes in the coordinator's latest word.
func (d *driver) hear() {
	d.perform(d.worker.hear())
	d.volunteer(d.ctx, d.heard())
}

// end cancels the long action under way and waits for it.
func (d *driver) end() {
	d.cancel()
	if d.busy {
		<-d.answers
	}
}

func (d *driver) answered(e step.Event) {
	d.busy = false
	d.cancel()
	if _, connected := e.(step.Connected); connected {
		d.lost = d.ring.Done()
	}
	d.perform(d.machine.Handle(e))
}

func (d *driver) perform(actions []step.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case step.Cancel:
			d.cancel()
		case step.Disconnect:
			d.lost = nil
			d.disconnect()
		case step.Discard:
			d.tally.Discard()
		case step.ReportAborted:
			d.aborted(d.ctx, a)
		case step.ReportUnable:
			d.dropOut(d.ctx, a)
		case step.ReportYielded:
			d.yielded(d.ctx, a)
		case step.ReportBroken:
			d.broken(d.ctx, errors.New(a.Detail))
		default:
			d.begin(a)
		}
	}
}

// begin starts a long action.
func (d *driver) begin(a step.Action) {
	ctx, cancel := context.WithCancel(d.ctx)
	d.busy, d.cancel = true, cancel
	go func() { d.answers <- d.worker.perform(ctx, a) }()
}

// ringLost is the event of a ring that died, which may happen while the member is at its gradients.
func (w *worker) ringLost() step.Event {
	f := failure(w.ring.Err())
	return step.RingLost{Generation: w.lease.Generation, Suspect: f.Suspect, Detail: f.Detail}
}
