package allreduce

import (
	"context"
	"math"
	"time"
)

// Stats says what one operation cost this member.
type Stats struct {
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
	r.prepare(g, op, a, out)
	st, err := g.measure(began, func() error { return r.circle(g) })
	if err != nil {
		return st, err
	}
	return st, out.settle(op, r.trailer())
}

// measure runs f and counts what it cost.
func (g *Group) measure(began time.Time, f func() error) (Stats, error) {
	var sent, received int64
	g.run.first = time.Time{}
	if g.next != nil {
		sent, received = g.next.sent.Load(), g.prev.received.Load()
	}
	err := f()
	st := Stats{Elapsed: time.Since(began)}
	if g.next != nil {
		st.Sent, st.Received = g.next.sent.Load()-sent, g.prev.received.Load()-received
	}
	if !g.run.first.IsZero() {
		st.Waited = g.run.first.Sub(began)
	}
	return st, err
}

// ringRun is the state of one ring all-reduce. In hop h of 2(N-1), the member of rank r sends chunk r-h and
// receives chunk r-h-1 (mod N). What it sends in a hop after the first is what it received in the hop before.
type ringRun struct {
	shape
	g     *Group
	op    OpID
	plan  uint32
	in    []int64   // the member's own vector, read-only
	acc   []int64   // partial sums of the reduce-scatter; trailer blocks of the all-gather
	out   []float32 // finished gradient
	unit  float32
	first time.Time // when the first frame arrived

	ready chan struct{} // one token per segment that may be sent on
	buf   []byte        // the sender's
}

// prepare sets up the run; memory only grows, so that steps and evaluations may alternate.
func (r *ringRun) prepare(g *Group, op OpID, a *Accum, out *Sum) {
	s := shape{a.params, len(a.v) - a.params, g.Size()}
	if r.shape != s && s.size > 1 {
		r.grow(len(a.v), 2*s.allSegments())
	}
	out.resize(a.params)
	r.shape, r.g, r.op, r.plan = s, g, op, s.plan(a.unitLog2)
	r.in, r.out, r.unit = a.v, out.Grad, float32(math.Ldexp(1, a.unitLog2))
}

// grow makes room for a vector of n slots that takes up to tokens segments to forward.
func (r *ringRun) grow(n, tokens int) {
	if cap(r.acc) < n {
		r.acc = make([]int64, n)
	}
	r.acc = r.acc[:n]
	if cap(r.ready) < tokens {
		r.ready = make(chan struct{}, tokens)
	}
	if r.buf == nil {
		r.buf = make([]byte, MaxPayload+slack)
	}
}

// trailer is the summed trailer.
func (r *ringRun) trailer() []int64 {
	if r.size == 1 {
		return r.in[r.params:]
	}
	return r.acc[r.params:]
}

// circle runs all hops, sending and receiving concurrently, and returns when both are done.
func (r *ringRun) circle(g *Group) error {
	if r.size == 1 {
		round(r.out, r.in[:r.params], r.unit)
		return nil
	}
	sent := make(chan error, 1)
	go func() { sent <- r.send() }()
	err := r.receive()
	// The sender reads the caller's accumulator: it must be gone before the caller gets it back.
	if e := <-sent; err == nil {
		err = e
	}
	return err
}

func (r *ringRun) hops() int { return 2 * (r.size - 1) }

// gathering says whether hop h carries finished chunks.
func (r *ringRun) gathering(h int) bool { return h >= r.size-1 }

// sends is the chunk that the member of this rank sends in hop h; its predecessor's is what it receives.
func (r *ringRun) sends(rank, h int) int {
	return ((rank-h)%r.size + r.size) % r.size
}

func (r *ringRun) header(h, seg int) Header {
	phase := ReduceScatter
	if r.gathering(h) {
		phase = AllGather
	}
	return Header{Type: Data, Phase: phase, Op: r.op, Hop: uint32(h), Segment: uint32(seg), Plan: r.plan}
}

// send sends every hop's chunk, segment by segment, each as soon as it has been received and added.
func (r *ringRun) send() error {
	for h := range r.hops() {
		c := r.sends(r.g.cfg.Rank, h)
		for seg := range r.segments(c) {
			if h > 0 && !r.await() {
				return r.g.Err()
			}
			n := r.encode(h, c, seg)
			if err := r.g.next.write(r.header(h, seg), r.buf[:n]); err != nil {
				return r.g.writeFailed(r.g.next, err)
			}
		}
	}
	return nil
}

// await waits for a token; false means that the group is dead.
func (r *ringRun) await() bool {
	select {
	case <-r.ready:
		return true
	case <-r.g.dead:
		return false
	}
}

// encode packs a segment into buf and returns its length.
func (r *ringRun) encode(h, c, seg int) int {
	v := r.acc
	if h == 0 {
		v = r.in
	}
	n := 0
	b0, b1 := r.segment(c, seg)
	for b := b0; b < b1; b++ {
		if lo, hi := r.block(b); r.gathering(h) && lo < r.params {
			n += packFloats(r.buf[n:], r.out[lo:hi])
		} else {
			n += pack(r.buf[n:], v[lo:hi])
		}
	}
	return n
}

// receive takes every hop's chunk from the previous member, adds or stores it, and lets the sender have it.
func (r *ringRun) receive() error {
	last := r.hops() - 1
	for h := range r.hops() {
		c := r.sends(r.g.cfg.Rank-1, h)
		for seg := range r.segments(c) {
			if err := r.take(h, c, seg); err != nil {
				return err
			}
			if h < last {
				r.ready <- struct{}{}
			}
		}
	}
	return nil
}

// take receives one segment.
func (r *ringRun) take(h, c, seg int) error {
	want := r.header(h, seg)
	r.g.phase.Store(uint32(want.Phase))
	k, err := r.g.receive(want)
	if err != nil {
		return err
	}
	defer r.g.prev.release(k)
	if r.first.IsZero() {
		r.first = time.Now()
	}
	if err := r.decode(h, c, seg, k); err != nil {
		return r.g.abort(r.g.prev.id, err)
	}
	return nil
}

// decode unpacks a segment. Payload buffers end in slack bytes.
func (r *ringRun) decode(h, c, seg int, k packet) error {
	src, left := k.buf[:len(k.payload)+slack], len(k.payload)
	b0, b1 := r.segment(c, seg)
	for b := b0; b < b1; b++ {
		n, err := r.decodeBlock(h, b, src, left)
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

func (r *ringRun) decodeBlock(h, b int, src []byte, end int) (int, error) {
	lo, hi := r.block(b)
	grad := lo < r.params
	switch {
	case r.gathering(h) && grad:
		return unpackFloats(r.out[lo:hi], src, end)
	case r.gathering(h):
		clear(r.acc[lo:hi])
		return unpackAdd(r.acc[lo:hi], r.acc[lo:hi], src, end)
	}
	n, err := unpackAdd(r.acc[lo:hi], r.in[lo:hi], src, end)
	if err == nil && grad && h == r.size-2 { // the chunk is complete and this member owns it
		round(r.out[lo:hi], r.acc[lo:hi], r.unit)
	}
	return n, err
}
