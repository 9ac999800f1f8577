package cpu

import "lorad/engine/kernel"

// frozen is what both kinds of frozen weight share: kernel.Frozen over two operands.
type frozen struct {
	ops           *Ops
	out, in       int
	bytes         int
	forward, back operand // W^T [in,out] and W [out,in]
	row           func(i int, dst []float32)
	format        format
}

// Freeze packs m into strips: see strips.
func (o *Ops) Freeze(m kernel.Matrix[float32], p kernel.Precision) kernel.Frozen[float32] {
	if p == kernel.BF16 {
		s := newHalfStrips(m, &o.kernels, o.format(p))
		return &frozen{o, s.out, s.in, 4 * len(s.data), (*forwardHalf)(s), (*backwardHalf)(s), s.row, s.format}
	}
	s := newStrips(m, &o.kernels)
	return &frozen{o, s.out, s.in, 4 * len(s.data), (*forwardStrips)(s), (*backwardStrips)(s), s.row, full}
}

// Keep unpacks m into the cache, block by block, in every product.
func (o *Ops) Keep(m kernel.Matrix[float32], p kernel.Precision) kernel.Frozen[float32] {
	out, in := m.Shape()
	bytes := 0
	if b, ok := m.(interface{ Bytes() int }); ok {
		bytes = b.Bytes()
	}
	row := func(i int, dst []float32) {
		m.Unpack(i, i+1, 0, in, dst, in)
		if p == kernel.BF16 {
			roundTo(dst, dst)
		}
	}
	half, _ := m.(kernel.PairMatrix[float32])
	return &frozen{o, out, in, bytes, forwardKept{m, half}, backwardKept{m, half}, row, o.format(p)}
}

func (f *frozen) Shape() (out, in int) { return f.out, f.in }

func (f *frozen) Bytes() int { return f.bytes }

func (f *frozen) Row(i int, dst []float32) { f.row(i, dst[:f.in]) }

func (f *frozen) Forward(rows int, x []float32, ldx int, y []float32, ldy int, acc bool, t kernel.LowRank[float32]) {
	j := f.ops.jobs.get()
	if t.R > 0 {
		j.term.over(f.ops, false, true, rows, f.out, t.R, t.U, t.R, t.V, t.R, y, ldy, true, &j.termB)
	}
	f.multiply(j, f.forward, rows, f.out, f.in, x, ldx, y, ldy, acc, t.R > 0)
}

func (f *frozen) Backward(rows int, dy []float32, ldy int, dx []float32, ldx int, acc bool, t kernel.LowRank[float32]) {
	j := f.ops.jobs.get()
	if t.R > 0 {
		j.term.over(f.ops, false, false, rows, f.in, t.R, t.U, t.R, t.V, f.in, dx, ldx, true, &j.termB)
	}
	f.multiply(j, f.back, rows, f.in, f.out, dy, ldy, dx, ldx, acc, t.R > 0)
}

func (f *frozen) multiply(j *job, b operand, m, n, k int, a []float32, lda int, c []float32, ldc int, acc, term bool) {
	check("A", m, k, lda, len(a))
	check("C", m, n, ldc, len(c))
	j.main = product{kernels: f.ops.kernels, ops: f.ops, m: m, n: n, k: k, to: k, a: a, as: lda, ak: 1, b: b, c: c, ldc: ldc, acc: acc, format: f.format}
	if f.format == pairs {
		j.main.wide, j.main.narrow = f.ops.kernels.pairs.tile, f.ops.kernels.pairs.tile
	}
	if term {
		j.main.term = &j.term
	}
	j.main.job = j
	j.main.compute()
	f.ops.jobs.put(j)
}

// strips is a weight W[out,in] as the panels of its forward product, in the order of their use: for each slab of rows of W, for each
// block of kStep(in) columns, for each strip of width rows, the strip's columns, of width numbers each; rows that W does not have are 0.
// The forward product uses panels in place, and reads memory from front to back; the backward product turns blocks of them over, each of
// which is a few kilobytes in a row. Why not whole strips one after the other: panels of a slab would be a multiple of 4 KiB apart
// for most models, and throw each other out of the cache (half the speed, measured).
type strips struct {
	out, in, width, step, slab int
	data                       []float32
}

func newStrips(m kernel.Matrix[float32], k *kernels) *strips {
	out, in := m.Shape()
	s := newLayout(out, in, k.wide.cols, kStep(in), full)
	s.load(m, k, nil)
	return &s
}

func newLayout(out, in, width, step int, f format) strips {
	return strips{out, in, width, step, f.slab(), make([]float32, (out+width-1)/width*width*in)}
}

// load turns the rows of m into strips, after round has made words of them, in place.
func (s *strips) load(m kernel.Matrix[float32], k *kernels, round func(rows []float32, n int)) {
	_, in := m.Shape()
	rows := make([]float32, s.width*in)
	for o := 0; o < s.out; o += s.width {
		q := panel{cols: min(s.width, s.out-o), stride: s.width}
		m.Unpack(o, o+q.cols, 0, in, rows, in)
		if round != nil {
			round(rows, q.cols)
		}
		for i := 0; i < s.in; i += s.step {
			q.turn(k.transpose, s.from(o, i), min(s.step, s.in-i), rows[i:], s.in)
		}
	}
}

// from is the data from W[o,i] on.
func (s *strips) from(o, i int) []float32 {
	slab, block := o/s.slab*s.slab, i/s.step*s.step
	cols := min(s.slab, (s.out-slab+s.width-1)/s.width*s.width)
	k := min(s.step, s.in-block)
	return s.data[slab*s.in+cols*block+((o-slab)/s.width*k+i-block)*s.width+o%s.width:]
}

func (s *strips) row(o int, dst []float32) {
	for i := 0; i < len(dst); i += s.step {
		block := s.from(o, i)
		for j := range min(s.step, len(dst)-i) {
			dst[i+j] = block[j*s.width]
		}
	}
}

type forwardStrips strips

func (f *forwardStrips) fill(_ *product, _ *scratch, list []panel, _, p, _ int) {
	for i := range list {
		list[i].at, list[i].stride = (*strips)(f).from(list[i].j, p), f.width
	}
}

type backwardStrips strips

func (f *backwardStrips) fill(g *product, _ *scratch, list []panel, _, p, k int) {
	for o, n := p, 0; o < p+k; o += n {
		n = min(f.width-o%f.width, p+k-o)
		for i := range list {
			list[i].block(g, (*strips)(f), o, n, o-p)
		}
	}
}

// block turns rows o..o+n of W, which lie in one strip, into rows r.. of the panel; its columns may straddle blocks.
func (q *panel) block(g *product, s *strips, o, n, r int) {
	part := *q
	for j := 0; j < q.cols; j += part.cols {
		i := q.j + j
		part.cols = min(q.cols-j, s.step-i%s.step)
		part.turn(g.transpose, q.at[r*q.stride+j:], n, s.from(o, i), s.width)
	}
	q.pad(q.at[r*q.stride:], n)
}

// forwardKept and backwardKept are a weight in a form of its own; half is nil if it cannot unpack to bf16.
type forwardKept struct {
	m    kernel.Matrix[float32]
	half kernel.PairMatrix[float32]
}

func (f forwardKept) fill(g *product, s *scratch, list []panel, _, p, k int) {
	for i := range list {
		q := &list[i]
		if g.format != full {
			f.fillHalf(g, s, q, p, k)
			continue
		}
		f.m.Unpack(q.j, q.j+q.cols, p, p+k, s.w[:], k)
		q.turn(g.transpose, q.at, k, s.w[:], k)
		q.pad(q.at, k)
	}
}

type backwardKept struct {
	m    kernel.Matrix[float32]
	half kernel.PairMatrix[float32]
}

func (f backwardKept) fill(g *product, s *scratch, list []panel, _, p, k int) {
	for i := range list {
		q := &list[i]
		if g.format != full {
			f.fillHalf(g, s, q, p, k)
			continue
		}
		f.m.Unpack(p, p+k, q.j, q.j+q.cols, q.at, q.stride)
		q.pad(q.at, k)
	}
}
