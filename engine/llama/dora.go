package llama

import (
	"math"

	"lorad/engine/kernel"
	"lorad/engine/lora"
)

// dora learns the length of each row of an adapted weight apart from its direction (Liu et al. 2024): with W' = W + s*B A, row j of the
// weight is magnitude[j] * W'[j] / ||W'[j]||. As in PEFT the norms count as constants in the backward pass, and dropout is on the input of
// the difference to the frozen weight only: y = W x + (gain-1) * W xd + gain * s*B(A(xd)), gain = magnitude/norm.
type dora[T kernel.Float] struct {
	magnitude weight[T] // [out]
	norms     []T       // [out] of the rows of W'
	gain      []T       // [out]
}

// normBlock is how many rows of a weight are unpacked at a time to find their norms.
const normBlock = 64

// refresh works out the gains of all adapters, and their norms if the parameters have changed; then also what norms multiply by.
func (m *Model[T]) refresh() {
	for _, w := range m.plusOne {
		for i := 0; i < len(w.plus) && m.stale; i++ {
			w.plus[i] = 1 + w.data[i]
		}
	}
	m.eachAdapter(func(l *linear[T]) {
		d := &l.dora
		if d.magnitude.data == nil {
			return
		}
		if m.stale {
			d.norms = m.rowNorms(l, d.norms)
		}
		if d.gain == nil {
			d.gain = make([]T, l.out)
		}
		for j, n := range d.norms {
			d.gain[j] = d.magnitude.data[j] / n
		}
	})
	m.stale = false
}

// rowNorms writes ||W[j] + s*B[j] A|| to norms[out].
func (m *Model[T]) rowNorms(l *linear[T], norms []T) []T {
	if norms == nil {
		norms = make([]T, l.out)
	}
	scaled := make([]T, len(l.b.data))
	for i, b := range l.b.data {
		scaled[i] = l.scale * b
	}
	m.ops.Parallel((l.out+normBlock-1)/normBlock, func(i int) {
		from := i * normBlock
		n := min(normBlock, l.out-from)
		w := m.free.get(n * l.in)
		defer m.free.put(w)
		for j := range n {
			l.frozen.Row(from+j, w[j*l.in:(j+1)*l.in])
		}
		m.ops.Gemm1(false, false, n, l.in, l.rank, scaled[from*l.rank:], l.rank, l.a.data, l.in, w, l.in, true)
		for j := range n {
			norms[from+j] = norm(w[j*l.in : (j+1)*l.in])
		}
	})
	return norms
}

func norm[T kernel.Float](x []T) T {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return T(math.Sqrt(sum))
}

// forwardDoRA is forward of an adapter with magnitudes, but for the bias. W x + (gain-1) * W xd is W (x - xd) + gain * W xd.
func (m *Model[T]) forwardDoRA(l *linear[T], rows, row0 int, x, y, u []T, acc bool) {
	xd := m.dropped(l, rows, row0, x, true)
	t := m.directed(l, rows, xd, u, true)
	if m.buf.drops {
		rest := grow(&m.buf.rest, rows*l.in)
		for i := range rest {
			rest[i] = x[i] - xd[i]
		}
		l.frozen.Forward(rows, rest, l.in, y, l.out, acc, kernel.LowRank[T]{})
		acc = true
	}
	for i := range rows {
		to, from := y[i*l.out:(i+1)*l.out], t[i*l.out:(i+1)*l.out]
		if !acc {
			clear(to)
		}
		for j, g := range l.dora.gain {
			to[j] += g * from[j]
		}
	}
}

// directed is W xd + s*B(A(xd)), in a buffer. u[rows,rank] is s*A(xd): written if fresh, else read.
func (m *Model[T]) directed(l *linear[T], rows int, xd, u []T, fresh bool) []T {
	if fresh {
		m.ops.Gemm(false, true, rows, l.rank, l.in, xd, l.in, l.a.data, l.in, u, l.rank, false)
		m.ops.Scale(l.scale, u[:rows*l.rank])
	}
	t := grow(&m.buf.directed, rows*l.out)
	l.frozen.Forward(rows, xd, l.in, t, l.out, false, kernel.LowRank[T]{R: l.rank, U: u, V: l.b.data})
	return t
}

// backwardDoRA is backward of an adapter with magnitudes, but for the bias. What the forward pass multiplied by gain is computed again,
// for d magnitude = sum(dy * it) / norm; then g = gain*dy goes back as dy does without magnitudes.
func (m *Model[T]) backwardDoRA(l *linear[T], rows, row0 int, x, u, dy, dx []T, acc, more bool) {
	t := m.directed(l, rows, m.dropped(l, rows, row0, x, false), u, false)
	m.magnitudeGradient(l, rows, t, dy, more)
	for i := range rows {
		for j, gain := range l.dora.gain {
			t[i*l.out+j] = gain * dy[i*l.out+j]
		}
	}
	down := m.backwardLoRA(l, rows, row0, x, u, t, more)
	switch {
	case dx == nil:
	case m.buf.drops:
		m.backDroppedDoRA(l, rows, row0, down, dy, t, dx, acc)
	default:
		l.frozen.Backward(rows, t, l.out, dx, l.in, acc, down)
	}
}

// magnitudeGradient adds up dy * t over the rows, columns side by side.
func (m *Model[T]) magnitudeGradient(l *linear[T], rows int, t, dy []T, more bool) {
	g := l.dora.magnitude.grad(m.buf.grad)
	if !more {
		clear(g)
	}
	m.ops.Parallel((l.out+normBlock-1)/normBlock, func(block int) {
		from := block * normBlock
		to := min(from+normBlock, l.out)
		var sum [normBlock]T
		for i := range rows {
			a, b := t[i*l.out+from:i*l.out+to], dy[i*l.out+from:i*l.out+to]
			for j := range a {
				sum[j] += a[j] * b[j]
			}
		}
		for j := from; j < to; j++ {
			g[j] += sum[j-from] / l.dora.norms[j]
		}
	})
}

// backDroppedDoRA: dx = (1-k) * (dy W) + k * (g W + du A), where k is dropout's factor of each input.
func (m *Model[T]) backDroppedDoRA(l *linear[T], rows, row0 int, down kernel.LowRank[T], dy, g, dx []T, acc bool) {
	back, rest := m.buf.drop, grow(&m.buf.rest, rows*l.in) // xd is not needed any more
	l.frozen.Backward(rows, g, l.out, back, l.in, false, down)
	l.frozen.Backward(rows, dy, l.out, rest, l.in, false, kernel.LowRank[T]{})
	mask, keep := m.buf.masks[l.site], m.drop(l).Keep
	m.eachRows(rows, func(lo, hi int) {
		b, r, d := back[lo*l.in:hi*l.in], rest[lo*l.in:hi*l.in], dx[lo*l.in:hi*l.in]
		for i := range b {
			b[i] -= r[i]
		}
		lora.Apply(mask[(row0+lo)*l.in/8:], keep, b, b)
		if !acc {
			clear(d)
		}
		m.ops.Axpy(1, r, d)
		m.ops.Axpy(1, b, d)
	})
}

// grow is a buffer of n elements, kept for the next time; what was in it is lost.
func grow[T kernel.Float](b *[]T, n int) []T {
	if len(*b) < n {
		*b = make([]T, n+n/4)
	}
	return (*b)[:n]
}
