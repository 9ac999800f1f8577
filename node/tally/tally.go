// Package tally adds up the gradients of a step: in an allreduce.Accum, and where an engine can do it (engine.Adder), in the engine.
//
// A gradient of 12.6 million parameters is 50 MB. On a GPU that computes one in 20 ms, bringing it to the host and rounding and adding it there takes as long
// again. So gradients stay on the GPU, are rounded and added there by the accumulator's own rules, and a step ends with one copy of 100 MB per GPU.
// That copy comes in parts, straight into the accumulator, and the reduction is at work on the parts that are there. With several GPUs the
// host adds their parts up, on as many threads as it has; integers, so that the order does not matter.
//
// The accumulator alone knows which micro-batches count: what an engine computed ahead of time, and turned out to be another member's, is never
// added. After a reduction that failed the accumulator holds all that was added so far and the engines nothing; what is computed after that comes on top.
package tally

import (
	"context"
	"fmt"

	"lorad/allreduce"
	"lorad/engine"
)

// Tally is one member's share of a step. It is not safe for concurrent use.
type Tally struct {
	Accum *allreduce.Accum

	params, unitLog2 int
	units            []int8
	threads          int
	engines          []source
}

// source is an engine with a sum of its own.
type source struct {
	engine.Adder
	some bool    // something was added since it was emptied
	room []int64 // for its sum on the way, where it cannot go straight into the accumulator
}

// New makes a tally for at most so many micro-batches per step, with the unit 2^unitLog2, of gradients that those trainers compute. Sums of several engines
// are added up on so many threads.
func New(micros, unitLog2, threads int, trainers ...engine.Trainer) *Tally {
	n := len(trainers[0].Params())
	t := &Tally{Accum: allreduce.NewAccum(n, micros, unitLog2), params: n, unitLog2: unitLog2, threads: max(threads, 1)}
	for _, e := range trainers {
		if a, ok := e.(engine.Adder); ok {
			t.engines = append(t.engines, source{Adder: a})
		}
	}
	t.begin()
	return t
}

// Reset empties it for a step of so many micro-batches. units, if not nil, are the parameters' own (allreduce.Accum.Quantise), and are kept.
func (t *Tally) Reset(micros int, units []int8) {
	t.Accum.ResetFor(micros)
	t.Accum.Quantise(units)
	t.units = units
	t.begin()
}

// Discard empties it; the step begins again.
func (t *Tally) Discard() {
	t.Accum.Reset()
	t.begin()
}

func (t *Tally) begin() {
	for i := range t.engines {
		t.engines[i].Begin(engine.Fixed{UnitLog2: t.unitLog2, Units: t.units, Micros: t.Accum.Micros()})
		t.engines[i].some = false
	}
}

// Gradient is a micro-batch's: here, or held by the engine that computed it.
type Gradient struct {
	Loss float64
	Here []float32
	Held engine.Adder
}

// Compute has a trainer compute a gradient, in memory that is given unless the engine holds it. The trainer is one of New's.
func Compute(t engine.Trainer, b engine.Batch, scale float32, key engine.Key, grad []float32) (g Gradient, err error) {
	if a, ok := t.(engine.Adder); ok {
		g.Held = a
		g.Loss, err = a.Hold(b, scale, key)
		return g, err
	}
	g.Here = grad
	g.Loss, err = t.Gradient(b, scale, key, grad)
	return g, err
}

// Room is memory for a trainer's gradients, if it needs any.
func Room(t engine.Trainer) []float32 {
	if _, ok := t.(engine.Adder); ok {
		return nil
	}
	return make([]float32, len(t.Params()))
}

// Add adds the gradient of micro-batch mb, of so many labelled and so many tokens in all; see allreduce.Accum.Add.
func (t *Tally) Add(mb int, g Gradient, tokens, total int64) error {
	if g.Held == nil {
		return t.Accum.Add(mb, g.Here, g.Loss, tokens, total)
	}
	for i := range t.engines {
		if e := &t.engines[i]; e.Adder == g.Held {
			return t.Accum.AddBy(mb, g.Loss, tokens, total, func() (fits bool, err error) {
				fits, err = e.Adder.Add()
				e.some = e.some || fits
				return fits, err
			})
		}
	}
	return fmt.Errorf("add micro-batch %d: an engine holds it that has no part in the sum", mb)
}

// LostError says that an engine's sum, and with it this member's share of the step, is lost.
type LostError struct{ cause error }

func (e *LostError) Error() string { return "the sum of gradients is lost: " + e.cause.Error() }
func (e *LostError) Unwrap() error { return e.cause }

// Reduce is allreduce.Group.Reduce, which begins while the engines' sums are on their way. When it returns, be it well or not, they are in the accumulator,
// or the error is a LostError.
func (t *Tally) Reduce(ctx context.Context, g *allreduce.Group, op allreduce.OpID, out *allreduce.Sum) (allreduce.Stats, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	brought := t.bring(cancel)
	st, err := g.Reduce(ctx, op, t.Accum, out)
	if lost := brought(); lost != nil {
		return st, &LostError{lost}
	}
	return st, err
}
