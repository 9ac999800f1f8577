package cpu

import (
	"unsafe"

	"lorad/engine/kernel"
)

// halfStrips is a weight in bf16: strips of pairs along its rows. in is the length of a row in numbers, strips.in in pairs.
type halfStrips struct {
	strips
	in     int
	format format // pairs or swapped: what panels are to hold
}

func newHalfStrips(m kernel.Matrix[float32], k *kernels, f format) *halfStrips {
	out, in := m.Shape()
	s := &halfStrips{newLayout(out, (in+1)/2, k.wide.cols, kStep(in)/2, f), in, f}
	s.strips.load(m, k, func(rows []float32, n int) {
		for r := range n {
			k.pairs.roundRow(rows[r*s.strips.in:(r+1)*s.strips.in], rows[r*in:(r+1)*in])
		}
	})
	return s
}

func (s *halfStrips) row(o int, dst []float32) {
	for i := 0; i < len(dst); i += 2 * s.step {
		block := s.from(o, i/2)
		for j := range min(2*s.step, len(dst)-i) {
			dst[i+j] = element(block[j/2*s.width], j)
		}
	}
}

type forwardHalf halfStrips

func (f *forwardHalf) fill(_ *product, _ *scratch, list []panel, _, p, k int) {
	for x := range list {
		q := &list[x]
		if f.format == pairs {
			q.at, q.stride = f.from(q.j, p/2), f.width
			continue
		}
		for i := range f.format.steps(k) / 2 {
			src := f.from(q.j, p/2+i)
			for c := range q.stride {
				q.at[2*i*q.stride+c], q.at[(2*i+1)*q.stride+c] = element(src[c], 1), element(src[c], 0)
			}
		}
	}
}

type backwardHalf halfStrips

func (b *backwardHalf) fill(g *product, s *scratch, list []panel, _, p, k int) {
	for o, n := p, 0; o < p+k; o += n {
		n = min(b.width-o%b.width, p+k-o)
		for x := range list {
			q := &list[x]
			if b.format == pairs {
				b.turn(g, s, q, o, n, (o-p)/2)
			} else {
				b.swap(q, o, n, o-p)
			}
		}
	}
}

// turn writes rows o..o+n of W, which lie in one strip, to rows r.. of a panel of pairs along the columns' index: straight from the strip
// if the panel's columns lie in one block of it, otherwise by way of a copy.
func (b *backwardHalf) turn(g *product, s *scratch, q *panel, o, n, r int) {
	first, rows := q.j/2, (q.cols+1)/2
	src, dst := b.from(o, first), q.at[r*q.stride:]
	direct := q.cols == q.stride && n&3 == 0 && first%b.step+rows <= b.step
	if direct {
		g.pairs.turn(n, &src[0], &dst[0])
		return
	}
	copied, turned := s.w[:16*32], s.w[16*32:]
	clear(copied)
	for i := range rows {
		copy(copied[i*32:i*32+n], b.from(o, first+i))
	}
	g.pairs.turn((n+3)&^3, &copied[0], &turned[0])
	copy(dst[:(n+1)/2*q.stride], turned)
}

// swap writes the same rows as float32, neighbours exchanged.
func (b *backwardHalf) swap(q *panel, o, n, r int) {
	if n&1 == 1 {
		clear(q.at[(r+n-1)*q.stride : (r+n)*q.stride])
	}
	for x := range n {
		d := q.at[((r+x)^1)*q.stride:]
		for c := range q.cols {
			d[c] = element(b.from(o+x, (q.j+c)/2)[0], q.j+c)
		}
		clear(d[q.cols:q.stride])
	}
}

// fillHalf is forwardKept.fill in bf16.
func (f forwardKept) fillHalf(g *product, s *scratch, q *panel, p, k int) {
	n := g.format.steps(k)
	if g.format == pairs {
		ld := (k + 31) &^ 31
		if f.half != nil && f.half.UnpackPairs(q.j, q.j+q.cols, p, p+k, words(s.w[:]), ld/2) {
			q.turn(g.transpose, q.at, n, s.w[:], ld/2)
			q.pad(q.at, n)
			return
		}
		f.m.Unpack(q.j, q.j+q.cols, p, p+k, s.w[:], ld)
		for c := 0; c < q.cols && k < ld; c++ {
			clear(s.w[c*ld+k : (c+1)*ld])
		}
		g.pairs.round(q.cols*ld, &s.w[0], &s.w[0])
		q.turn(g.transpose, q.at, n, s.w[:], ld/2)
	} else {
		f.m.Unpack(q.j, q.j+q.cols, p, p+k, s.w[:], n)
		for c := range q.cols {
			row := s.w[c*n : (c+1)*n]
			clear(row[k:])
			for i := range row {
				q.at[(i^1)*q.stride+c] = kernel.WidenBF16(kernel.RoundBF16(row[i]))
			}
		}
	}
	q.pad(q.at, n)
}

// fillHalf is backwardKept.fill in bf16.
func (f backwardKept) fillHalf(g *product, s *scratch, q *panel, p, k int) {
	n := (k + 1) &^ 1
	if g.format == pairs && q.cols == q.stride && k == n && f.half != nil && f.half.UnpackPairs(p, p+k, q.j, q.j+q.cols, words(s.w[:]), q.stride/2) {
		g.pairs.weave(n, &q.at[0], &s.w[0])
		return
	}
	f.m.Unpack(p, p+k, q.j, q.j+q.cols, s.w[:], q.stride)
	clear(s.w[k*q.stride : n*q.stride])
	if g.format == pairs {
		for r := 0; r < k && q.cols < q.stride; r++ {
			clear(s.w[r*q.stride+q.cols : (r+1)*q.stride])
		}
		g.pairs.round(n*q.stride, &s.w[0], &s.w[0])
		g.pairs.weave(n, &q.at[0], &s.w[0])
		return
	}
	for r := range n {
		roundTo(q.at[(r^1)*q.stride:(r^1)*q.stride+q.cols], s.w[r*q.stride:])
	}
	q.pad(q.at, n)
}

func roundTo(dst, src []float32) {
	for i := range dst {
		dst[i] = kernel.WidenBF16(kernel.RoundBF16(src[i]))
	}
}

// words is x as integers.
func words(x []float32) []uint32 { return unsafe.Slice((*uint32)(unsafe.Pointer(&x[0])), len(x)) }
