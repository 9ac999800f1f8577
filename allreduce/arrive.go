package allreduce

import (
	"cmp"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// tide is how much of a gradient is there, when it comes from elsewhere part by part.
type tide struct {
	size  int // of a part, in values
	there []chan struct{}
}

// Blank says that no gradient lies here: none was added or has arrived since the last Reset.
func (a *Accum) Blank() bool { return a.blank }

// Arrive lets in, in parts of so many values, what was added elsewhere (see AddBy), while Reduce is at work already: it waits for
// a part before it reads from it. grad is the sum so far, or of any content if Blank said so; the caller writes the new one over it and calls
// arrived, from any goroutine, for each part that is final. Nothing else may be done with the accumulator until all are.
func (a *Accum) Arrive(size int) (grad []int64, arrived func(part int)) {
	t := &tide{size: size, there: make([]chan struct{}, ceilDiv(a.params, size))}
	for i := range t.there {
		t.there[i] = make(chan struct{})
	}
	a.tide, a.blank = t, false
	return a.v[:a.params], func(part int) { close(t.there[part]) }
}

// gradient is the sum of what was added here: nothing is cleared before there is something to add to.
func (a *Accum) gradient() []int64 {
	g := a.v[:a.params]
	if a.blank {
		clear(g)
		a.blank = false
	}
	return g
}

// await waits until the member's own values lo..hi can be read.
func (r *reduction) await(lo, hi int) error {
	if r.tide == nil {
		return nil
	}
	for p := lo / r.tide.size; p*r.tide.size < min(hi, r.params); p++ {
		select {
		case <-r.tide.there[p]:
		case <-r.g.dead:
			return r.g.Err()
		}
	}
	return nil
}

// awaitSegment is await for a segment.
func (r *reduction) awaitSegment(c, seg int) error {
	b0, b1 := r.segment(c, seg)
	if b0 == b1 {
		return nil
	}
	lo, _ := r.block(b0)
	_, hi := r.block(b1 - 1)
	return r.await(lo, hi)
}

// alonePart is how many values one member's reduction rounds at a time, if they do not come in parts anyway.
const alonePart = 1 << 20

// alone is the reduction of one member: each part is rounded when it is there, by whichever processor is free.
func (r *reduction) alone() error {
	size := alonePart
	if r.tide != nil {
		size = r.tide.size
	}
	parts := ceilDiv(r.params, size)
	var next atomic.Int64
	round := func() error {
		for p := int(next.Add(1)) - 1; p < parts; p = int(next.Add(1)) - 1 {
			lo, hi := p*size, min((p+1)*size, r.params)
			if err := r.await(lo, hi); err != nil {
				return err
			}
			r.round(r.in, lo, hi)
		}
		return nil
	}
	var others errgroup.Group
	for range min(runtime.GOMAXPROCS(0), parts) - 1 {
		others.Go(round)
	}
	return cmp.Or(round(), others.Wait())
}
