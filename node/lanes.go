package node

import (
	"errors"
	"io"
	"slices"

	"lorad/engine"
	"lorad/node/tally"
)

// lanes computes several micro-batches of a step at a time, each on an engine of its own: the GPUs of one machine. Gradients come out in the order in which
// the step wants them, so whoever adds them up sees one after the other; since they are added as integers, it makes no difference which engine was first.
//
// The engines work ahead: a gradient that is asked for has mostly begun already. Work ahead is lost when it turns out to be somebody else's. An engine that adds
// gradients up itself begins the next one when the last is in its sum: it has room for one.
type lanes struct {
	first  engine.Trainer // whose parameters are the run's
	all    []*lane
	result []float32 // of the last gradient
}

// lane is one engine and what it is at.
type lane struct {
	trainer engine.Trainer
	grad    []float32
	busy    bool
	micro   int
	fresh   bool // it has the parameters of the step
	out     chan outcome
}

type outcome struct {
	gradient tally.Gradient
	err      error
}

// A task is what a micro-batch's gradient is a function of.
type task struct {
	batch engine.Batch
	scale float32
	key   engine.Key
}

func (t task) compute(m engine.Trainer, grad []float32) (tally.Gradient, error) {
	return tally.Compute(m, t.batch, t.scale, t.key, grad)
}

// newLanes has the first trainer's parameters be those of all.
func newLanes(trainers []engine.Trainer) *lanes {
	l := &lanes{first: trainers[0], result: tally.Room(trainers[0])}
	for _, t := range trainers {
		l.all = append(l.all, &lane{trainer: t, grad: tally.Room(t), out: make(chan outcome, 1)})
	}
	return l
}

// gradient has the gradient of the first of the micro-batches added; the engines go on with the others.
func (l *lanes) gradient(micros []int, of func(micro int) task, add func(tally.Gradient) error) error {
	l.forget(micros[:min(len(micros), len(l.all))])
	l.begin(micros, of)
	at := l.at(micros[0])
	o := <-at.out
	at.busy = false
	if o.err != nil {
		return o.err
	}
	if o.gradient.Held != nil {
		err := add(o.gradient)
		l.begin(micros[1:], of)
		return err
	}
	l.result, at.grad = at.grad, l.result
	l.begin(micros[1:], of)
	return add(o.gradient)
}

// begin gives every idle engine the next micro-batch that nobody is at.
func (l *lanes) begin(micros []int, of func(micro int) task) {
	for _, m := range micros {
		if l.at(m) != nil {
			continue
		}
		i := slices.IndexFunc(l.all, func(n *lane) bool { return !n.busy })
		if i < 0 {
			return
		}
		n := l.all[i]
		if n.trainer != l.first && !n.fresh {
			copy(n.trainer.Params(), l.first.Params())
			n.trainer.Changed()
		}
		n.busy, n.fresh, n.micro = true, true, m
		go n.compute(of(m))
	}
}

func (l *lanes) at(micro int) *lane {
	for _, n := range l.all {
		if n.busy && n.micro == micro {
			return n
		}
	}
	return nil
}

// forget waits for what is none of those, and drops it.
func (l *lanes) forget(but []int) {
	for _, n := range l.all {
		if n.busy && !slices.Contains(but, n.micro) {
			<-n.out
			n.busy = false
		}
	}
}

// trainers are all that compute gradients of the run.
func (w *worker) trainers() []engine.Trainer {
	if w.lanes == nil {
		return []engine.Trainer{w.trainer}
	}
	var all []engine.Trainer
	for _, n := range w.lanes.all {
		all = append(all, n.trainer)
	}
	return all
}

// settle ends all work: the parameters are about to change. On nil lanes it does nothing.
func (l *lanes) settle() {
	if l == nil {
		return
	}
	l.forget(nil)
	for _, n := range l.all {
		n.fresh = false
	}
}

// close gives the engines back that are not the run's first one.
func (l *lanes) close() (err error) {
	if l == nil {
		return nil
	}
	l.settle()
	for _, n := range l.all[1:] {
		if c, ok := n.trainer.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// compute does it in as much memory as the engine has.
func (n *lane) compute(t task) {
	for {
		g, err := t.compute(n.trainer, n.grad)
		if thrifty, ok := n.trainer.(engine.Thrifty); errors.Is(err, engine.ErrOutOfMemory) && ok && thrifty.Leaner() {
			continue
		}
		if err != nil {
			err = &unfitError{err}
		}
		n.out <- outcome{g, err}
		return
	}
}
