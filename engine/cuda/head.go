package cuda

import "lorad/engine/cuda/device"

// An adapter on the head is products of its own beside the head's, which a tied embedding shares: logits += u (scale*B)^T with u = A(dropout(hn)). The
// head sees its rows in chunks, so the gradients are added up, in their order.

// adaptLogits adds what the adapter has to say.
func (p *pass) adaptLogits(lo, rows int) {
	g, w, b := &p.n.head, &p.r.headAdapter, p.b
	if g.rank == 0 {
		return
	}
	p.xwt(rows, g.rank, g.in, 1, p.headInput(lo, rows), w.a, 0, b.hu)
	p.xwt(rows, g.out, g.rank, 1, b.hu, w.b, 1, wide(b.logits, g.out))
}

// headInput is dropout(hn), or hn itself when nothing is dropped.
func (p *pass) headInput(lo, rows int) device.Matrix {
	g, x := &p.n.head, matrix(p.b.hn, p.n.head.in)
	if !p.drops() {
		return x
	}
	p.dropout(x, p.b.xd, rows, g.in, g.parts[0].site, lo)
	return matrix(p.b.xd, g.in)
}

// headGradient is that of the adapter by rows lo and up: dB = scale * dlogits^T u and dA = du^T dropout(hn), with du = scale * dlogits B.
func (p *pass) headGradient(lo, rows int) {
	g, l, b := &p.n.head, &p.n.head.parts[0], p.b
	if g.rank == 0 {
		return
	}
	var more float32
	if lo > 0 {
		more = 1
	}
	dlogits, place := matrix(b.dlogits, g.out), func(offset int) device.Ptr { return p.r.grad + device.Ptr(4*offset) }
	p.gemm(true, false, l.out, l.rank, rows, l.scale, dlogits, b.hu, more, wide(place(l.b), l.rank))
	p.xw(rows, g.rank, g.out, 1, dlogits, p.r.headAdapter.b, 0, b.hdu)
	p.gemm(true, false, l.rank, g.in, rows, 1, b.hdu, p.headInput(lo, rows), more, wide(place(l.a), g.in))
}

// throughHead adds what comes through the adapter to the gradient of hn.
func (p *pass) throughHead(lo, rows int) {
	g, a, b := &p.n.head, p.r.headAdapter.a, p.b
	switch {
	case g.rank == 0:
	case !p.drops():
		p.xw(rows, g.in, g.rank, 1, b.hdu, a, 1, matrix(b.dh, g.in))
	default:
		p.xw(rows, g.in, g.rank, 1, b.hdu, a, 0, matrix(b.dxa, g.in))
		p.dropoutAdd(matrix(b.dh, g.in), b.dxa, rows, g.in, g.parts[0].site, lo)
	}
}
