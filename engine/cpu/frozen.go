package cpu

import "lorad/engine/kernel"

// frozen is what both kinds of frozen weight share: kernel.Frozen over two operands.
type frozen struct {
	ops           *Ops
	out, in       int
	bytes         int
	forward, back operand // W^T [in,out] and W [out,in]
	row           func(i int, dst []float32)
}

// Freeze packs m into strips: see strips.
func (o *Ops) Freeze(m kernel.Matrix[float32]) kernel.Frozen[float32] {
	s := newStrips(m, o.kernels.wide.cols)
	return &frozen{o, s.out, s.in, 4 * len(s.data), (*forwardStrips)(s), (*backwardStrips)(s), s.row}
}

// Keep unpacks m into the cache, block by block, in every product.
func (o *Ops) Keep(m kernel.Matrix[float32]) kernel.Frozen[float32] {
	out, in := m.Shape()
	bytes := 0
	if b, ok := m.(interface{ Bytes() int }); ok {
		bytes = b.Bytes()
	}
	return &frozen{o, out, in, bytes, forwardKept{m}, backwardKept{m}, func(i int, dst []float32) { m.Unpack(i, i+1, 0, in, dst, in) }}
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
	j.main = product{kernels: f.ops.kernels, ops: f.ops, m: m, n: n, k: k, a: a, as: lda, ak: 1, b: b, c: c, ldc: ldc, acc: acc}
	if term {
		j.main.term = &j.term
	}
	j.main.compute()
	f.ops.jobs.put(j)
}

// strips is a weight W[out,in] as the panels of its forward product: strip s holds W[s*width+j, i] at (s*in+i)*width+j, with zeros
// for rows that W does not have. The forward product uses it in place; the backward one turns blocks of it over, each of which is a
// few kilobytes in a row.
type strips struct {
	out, in, width int
	data           []float32
}

func newStrips(m kernel.Matrix[float32], width int) *strips {
	out, in := m.Shape()
	s := &strips{out, in, width, make([]float32, (out+width-1)/width*width*in)}
	rows := make([]float32, width*in)
	for o := 0; o < out; o += width {
		n := min(width, out-o)
		m.Unpack(o, o+n, 0, in, rows, in)
		strip := s.data[o*in : (o+width)*in]
		for i := range in {
			for j := range n {
				strip[i*width+j] = rows[j*in+i]
			}
		}
	}
	return s
}

// from is the strips from W[o,i] on.
func (s *strips) from(o, i int) []float32 {
	return s.data[(o/s.width*s.in+i)*s.width+o%s.width:]
}

func (s *strips) row(o int, dst []float32) {
	src := s.from(o, 0)
	for i := range dst {
		dst[i] = src[i*s.width]
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
			q := &list[i]
			q.turn(g.transpose, q.at[(o-p)*q.stride:], n, (*strips)(f).from(o, q.j), f.width)
		}
	}
}

// forwardKept and backwardKept are a weight in a form of its own.
type forwardKept struct{ m kernel.Matrix[float32] }

func (f forwardKept) fill(g *product, s *scratch, list []panel, _, p, k int) {
	for i := range list {
		q := &list[i]
		f.m.Unpack(q.j, q.j+q.cols, p, p+k, s.w[:], k)
		q.turn(g.transpose, q.at, k, s.w[:], k)
	}
}

type backwardKept struct{ m kernel.Matrix[float32] }

func (f backwardKept) fill(_ *product, _ *scratch, list []panel, _, p, k int) {
	for i := range list {
		q := &list[i]
		f.m.Unpack(p, p+k, q.j, q.j+q.cols, q.at, q.stride)
		q.pad(q.at, k)
	}
}
