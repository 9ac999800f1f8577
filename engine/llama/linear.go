package llama

import (
	"lorad/engine/kernel"
	"lorad/engine/lora"
)

// linear is y = x W^T + bias + scale * B(A(dropout(x))). bias, a and b have no data where there is none.
type linear[T kernel.Float] struct {
	in, out int
	w, bias weight[T]        // [out,in], [out]; w is declared but has no data when it is frozen
	frozen  kernel.Frozen[T] // w, unless it is trainable
	a, b    weight[T]        // [rank,in], [out,rank]
	rank    int
	scale   T // of B(A(x))
	dora    dora[T]
	start   start[T]
	site    int // numbers the adapters of a model, for dropout
}

func (l *linear[T]) trainable() bool {
	return l.w.trainable() || l.bias.trainable() || l.a.trainable()
}

// forward writes y[rows,out], or adds to it if acc. u[rows,rank] keeps scale*A(dropout(x)) for the backward pass. row0 is the
// place of the first row among all rows that the layer sees in this step.
func (m *Model[T]) forward(l *linear[T], rows, row0 int, x, y, u []T, acc bool) {
	switch {
	case l.dora.magnitude.data != nil:
		m.forwardDoRA(l, rows, row0, x, y, u, acc)
	case l.frozen != nil:
		l.frozen.Forward(rows, x, l.in, y, l.out, acc, m.forwardLoRA(l, rows, row0, x, u))
	default:
		m.ops.Gemm(false, true, rows, l.out, l.in, x, l.in, l.w.data, l.in, y, l.out, acc)
	}
	for i := 0; i < rows && l.bias.data != nil; i++ {
		m.ops.Axpy(1, l.bias.data, y[i*l.out:(i+1)*l.out])
	}
}

// forwardLoRA computes u, and what it adds to the output.
func (m *Model[T]) forwardLoRA(l *linear[T], rows, row0 int, x, u []T) kernel.LowRank[T] {
	if l.a.data == nil {
		return kernel.LowRank[T]{}
	}
	m.ops.Gemm(false, true, rows, l.rank, l.in, m.dropped(l, rows, row0, x, true), l.in, l.a.data, l.in, u, l.rank, false)
	m.ops.Scale(l.scale, u[:rows*l.rank])
	return kernel.LowRank[T]{R: l.rank, U: u, V: l.b.data}
}

// backward takes dy[rows,out], and x and u as the forward pass had them. It writes dx[rows,in] (adds to it, if acc) unless dx is nil, and
// the gradients of trainable tensors; it adds to those if more, that is if other rows of the layer came before in this step.
func (m *Model[T]) backward(l *linear[T], rows, row0 int, x, u, dy, dx []T, acc, more bool) {
	g := m.buf.grad
	if gw := l.w.grad(g); gw != nil {
		m.ops.Gemm(true, false, l.out, l.in, rows, dy, l.out, x, l.in, gw, l.in, more)
	}
	if gb := l.bias.grad(g); gb != nil {
		m.columnSum(gb, dy, rows, more)
	}
	if l.dora.magnitude.data != nil {
		m.backwardDoRA(l, rows, row0, x, u, dy, dx, acc, more)
		return
	}
	var down kernel.LowRank[T]
	if l.a.data != nil {
		down = m.backwardLoRA(l, rows, row0, x, u, dy, more)
	}
	switch {
	case dx == nil:
	case l.frozen == nil:
		m.ops.Gemm(false, false, rows, l.in, l.out, dy, l.out, l.w.data, l.in, dx, l.in, acc)
	case m.buf.drops && down.R > 0:
		l.frozen.Backward(rows, dy, l.out, dx, l.in, acc, kernel.LowRank[T]{})
		m.backDropped(l, rows, row0, down, dx)
	default:
		l.frozen.Backward(rows, dy, l.out, dx, l.in, acc, down)
	}
}

// backwardLoRA: with u = s*A(xd) and du = s*B^T dy: dB = dy^T u, dA = du^T xd. What it returns, A^T du, is to be added to dx, under
// dropout's mask.
func (m *Model[T]) backwardLoRA(l *linear[T], rows, row0 int, x, u, dy []T, more bool) kernel.LowRank[T] {
	r, g, du := l.rank, m.buf.grad, m.buf.du
	m.ops.Gemm(true, false, l.out, r, rows, dy, l.out, u, r, l.b.grad(g), r, more)
	m.ops.Gemm(false, false, rows, r, l.out, dy, l.out, l.b.data, r, du, r, false)
	m.ops.Scale(l.scale, du[:rows*r])
	xd := m.dropped(l, rows, row0, x, false)
	m.ops.Gemm(true, false, r, l.in, rows, du, r, xd, l.in, l.a.grad(g), l.in, more)
	return kernel.LowRank[T]{R: r, U: du, V: l.a.data}
}

// backDropped adds what came through lora_A to dx, where dropout kept the input.
func (m *Model[T]) backDropped(l *linear[T], rows, row0 int, down kernel.LowRank[T], dx []T) {
	back := m.buf.drop // xd is not needed any more
	m.ops.Gemm(false, false, rows, l.in, down.R, down.U, down.R, down.V, l.in, back, l.in, false)
	mask, keep := m.buf.masks[l.site], m.drop(l).Keep
	m.eachRows(rows, func(lo, hi int) {
		s := back[lo*l.in : hi*l.in]
		lora.Apply(mask[(row0+lo)*l.in/8:], keep, s, s)
		m.ops.Axpy(1, s, dx[lo*l.in:hi*l.in])
	})
}

func (m *Model[T]) drop(l *linear[T]) lora.Dropout {
	return lora.NewDropout(m.dropout, m.buf.key, l.site)
}

// dropped is dropout(x), or x itself when nothing is dropped. The forward pass draws the mask, the backward pass uses it again.
func (m *Model[T]) dropped(l *linear[T], rows, row0 int, x []T, draw bool) []T {
	if !m.buf.drops {
		return x
	}
	y, d, mask := m.buf.drop, m.drop(l), m.buf.masks[l.site]
	m.eachRows(rows, func(lo, hi int) {
		from, to := (row0+lo)*l.in/8, ((row0+hi)*l.in+7)/8
		if draw {
			d.Draw(from, mask[from:to])
		}
		lora.Apply(mask[from:to], d.Keep, y[lo*l.in:hi*l.in], x[lo*l.in:hi*l.in])
	})
	return y
}

// columnSum writes (or adds to) sum[n] the sum of the rows of x.
func (m *Model[T]) columnSum(sum, x []T, rows int, more bool) {
	if !more {
		clear(sum)
	}
	for i := range rows {
		m.ops.Axpy(1, x[i*len(sum):(i+1)*len(sum)], sum)
	}
}

// rowBlock is how rows are cut for Parallel: a constant, so that partial sums do not depend on the machine; a multiple of 8, as
// dropout's masks are.
const rowBlock = 64

// eachRows runs f on blocks of rows.
func (m *Model[T]) eachRows(rows int, f func(lo, hi int)) {
	defer m.profile.enter(m.profile.enter(Rowwise))
	m.ops.Parallel((rows+rowBlock-1)/rowBlock, func(i int) {
		f(i*rowBlock, min((i+1)*rowBlock, rows))
	})
}
