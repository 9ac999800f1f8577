package allreduce

import (
	"context"
	"math"
	"time"
)

// Stats says what one operation cost this member.
type Stats struct {
	Way            Way
	Sent, Received int64         // bytes on the wire, headers and heartbeats included
	Elapsed        time.Duration // the whole operation
	Waited         time.Duration // of it, until the first frame arrived: the straggler's share
}

// Reduce sums the members' accumulators into out; it blocks until all of them have entered. a is only read. On
// an error other than a CoverageError out is undefined and, but for misuse, the group dead.
func (g *Group) Reduce(ctx context.Context, op OpID, a *Accum, out *Sum) (Stats, error) {
	began := time.Now()
	end, err := g.begin(ctx, op, ReduceScatter)
	if err != nil {
		return Stats{}, err
	}
	defer end()
	r := &g.run
	st, err := g.measure(began, func() error {
		if err := g.compare(op); err != nil {
			return err
		}
		r.prepare(g, op, a, out)
		return r.exchange()
	})
	st.Way = r.way
	if err != nil {
		return st, err
	}
	return st, out.settle(op, r.trailerSum())
}

// measure runs f and counts what it cost.
func (g *Group) measure(began time.Time, f func() error) (Stats, error) {
	sent, received := g.traffic()
	g.run.first = time.Time{}
	err := f()
	st := Stats{Elapsed: time.Since(began)}
	st.Sent, st.Received = g.traffic()
	st.Sent, st.Received = st.Sent-sent, st.Received-received
	if !g.run.first.IsZero() {
		st.Waited = g.run.first.Sub(began)
	}
	return st, err
}

// reduction is one all-reduce, whatever its way; its memory is kept from step to step.
type reduction struct {
	shape
	way   Way
	g     *Group
	op    OpID
	plan  uint32
	tight bool
	in    []int64   // the member's own vector, read-only
	acc   []int64   // partial sums of the reduce-scatter; trailer blocks of the all-gather
	out   []float32 // finished gradient
	unit  float32
	units []int8    // in its place, if not nil
	tide  *tide     // how much of in is there; nil = all
	first time.Time // when the first frame arrived

	tokens  chan segment // the ring's: what may be sent on
	spare   chan []byte  // and memory of what was
	mine    [][]byte     // the direct way's: this member's chunk, finished and packed
	scratch []byte
}

// prepare sets up the run; memory only grows, so that steps and evaluations may alternate.
func (r *reduction) prepare(g *Group, op OpID, a *Accum, out *Sum) {
	decide := g.table.choose
	if g.decide != nil {
		decide = g.decide
	}
	way, shares := decide(len(a.v))
	r.g, r.op, r.way, r.tight = g, op, way, vbmi || g.meter.slow()
	r.shape = newShape(a.params, len(a.v)-a.params, shares, r.bounds)
	r.plan = r.shape.plan(way, a.unitLog2, a.wire)
	out.resize(a.params)
	r.in, r.out, r.unit, r.units = a.v, out.Grad, float32(math.Ldexp(1, a.unitLog2)), a.units
	r.tight, r.tide = r.tight || r.units != nil, a.tide
	a.gradient() // zeros, if there is none
	if g.Size() > 1 {
		if cap(r.acc) < len(a.v) {
			r.acc = make([]int64, len(a.v))
		}
		r.acc = r.acc[:len(a.v)]
	}
}

// exchange returns when nothing that it started is under way any more, be it well or not: senders read the caller's
// accumulator.
func (r *reduction) exchange() error {
	switch {
	case r.g.Size() == 1:
		return r.alone()
	case r.way == Ring:
		return r.ring()
	}
	return r.direct()
}

// trailerSum is the summed trailer.
func (r *reduction) trailerSum() []int64 {
	if r.g.Size() == 1 {
		return r.in[r.params:]
	}
	return r.acc[r.params:]
}

func (r *reduction) header(p Phase, hop, seg int) Header {
	return Header{Type: Data, Phase: p, Op: r.op, Hop: uint32(hop), Segment: uint32(seg), Plan: r.plan}
}

// partial packs a segment of v behind dst, which has room for it.
func (r *reduction) partial(dst []byte, v []int64, c, seg int) int {
	n := 0
	b0, b1 := r.segment(c, seg)
	for b := b0; b < b1; b++ {
		lo, hi := r.block(b)
		n += pack(dst[n:], v[lo:hi], r.tight)
	}
	return n
}

// finished packs a segment that is summed and rounded.
func (r *reduction) finished(dst []byte, c, seg int) int {
	n := 0
	b0, b1 := r.segment(c, seg)
	for b := b0; b < b1; b++ {
		switch lo, hi := r.block(b); {
		case lo >= r.params:
			n += pack(dst[n:], r.acc[lo:hi], true)
		case r.units != nil:
			n += packUnits(dst[n:], r.out[lo:hi], r.units[lo:hi])
		default:
			n += packFloats(dst[n:], r.out[lo:hi], r.unit, r.tight)
		}
	}
	return n
}

// receive waits for the frame with this header from p.
func (r *reduction) receive(p *peer, want Header) (packet, error) {
	r.g.phase.Store(uint32(want.Phase))
	k, err := r.g.receive(p, want)
	if err == nil && r.first.IsZero() {
		r.first = time.Now()
	}
	return k, err
}

// add takes a segment of partial sums: acc = base + segment.
func (r *reduction) add(base []int64, c, seg int, k packet) error {
	return r.blockwise(c, seg, k, func(lo, hi int, src []byte, end int) (int, error) {
		return unpackAdd(r.acc[lo:hi], base[lo:hi], src, end)
	})
}

// store takes a segment that is finished.
func (r *reduction) store(c, seg int, k packet) error {
	return r.blockwise(c, seg, k, func(lo, hi int, src []byte, end int) (int, error) {
		switch {
		case lo < r.params && r.units != nil:
			return unpackUnits(r.out[lo:hi], r.units[lo:hi], src, end)
		case lo < r.params:
			return unpackFloats(r.out[lo:hi], r.unit, src, end)
		}
		clear(r.acc[lo:hi])
		return unpackAdd(r.acc[lo:hi], r.acc[lo:hi], src, end)
	})
}

// blockwise reads a payload block by block. Payload buffers end in slack bytes.
func (r *reduction) blockwise(c, seg int, k packet, f func(lo, hi int, src []byte, end int) (int, error)) error {
	src, left := k.buf[:len(k.payload)+slack], len(k.payload)
	b0, b1 := r.segment(c, seg)
	for b := b0; b < b1; b++ {
		lo, hi := r.block(b)
		n, err := f(lo, hi, src, left)
		if err != nil {
			return err
		}
		src, left = src[n:], left-n
	}
	if left != 0 {
		return errBlock
	}
	return nil
}

// finish rounds a segment that this member has summed up.
func (r *reduction) finish(c, seg int) {
	b0, b1 := r.segment(c, seg)
	for b := b0; b < b1; b++ {
		if lo, hi := r.block(b); lo < r.params {
			r.round(r.acc, lo, hi)
		}
	}
}

// round makes the finished values lo..hi of the sums v.
func (r *reduction) round(v []int64, lo, hi int) {
	if r.units != nil {
		roundUnits(r.out[lo:hi], v[lo:hi], r.units[lo:hi])
		return
	}
	round(r.out[lo:hi], v[lo:hi], r.unit)
}
