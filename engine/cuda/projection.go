package cuda

import "lorad/engine/cuda/device"

// projection is one group of a layer in a pass: y = x W^T + bias + scale * B(A(dropout(x))), part by part.
//
// Adapters are part of the weight's product, by a longer inner dimension. Behind its own columns, x has room for u = A(dropout(x)), and the weight for
// scale*B, so y = [x | u] [W | scale*B]^T. The gradient is that turned round: dy has room for du = scale * dy B, the weight for A below its
// rows, and dx = [dy | du] [W ; A]. In both, nothing but u and du is computed beside the one product, and y and dx are written once.
type projection struct {
	*pass
	g *group
	w *weights
	u device.Matrix // [rows,rank], kept for the backward pass
}

func (p *pass) projection(layer, stage int, k *kept) projection {
	g := &p.n.groups[layer][stage]
	j := projection{p, g, &p.r.groups[layer][stage], matrix(k.u[stage], g.rank)}
	if stage == stageO {
		j.u = right(k.o, g.in) // its input is kept, and u with it
	}
	return j
}

// project computes y[rows,out] of x[rows,in] and leaves u behind x.
func (p *pass) project(layer, stage int, x, y device.Matrix, k *kept) {
	j := p.projection(layer, stage, k)
	g := j.g
	var beta float32
	if g.bias {
		p.xw(p.rows, g.out, biasRows, 1, matrix(p.b.ones, biasRows), matrix(j.w.bias, g.out), 0, y)
		beta = 1
	}
	j.lowRank(x)
	p.xwt(p.rows, g.out, g.in+g.rank, 1, x, j.across(), beta, y)
}

// across is [W | scale*B], [out,in+rank]; upright is [W ; A], [out+rank,in].
func (j *projection) across() device.Matrix {
	m := j.weight()
	if j.w.parts != nil {
		j.copyMatrix(j.w.b, right(m, j.g.in), j.g.out, j.g.rank)
	}
	return m
}

func (j *projection) upright() device.Matrix {
	m := j.weight()
	if j.w.parts != nil {
		j.copyMatrix(j.w.a, below(m, j.g.out), j.g.rank, j.g.in)
	}
	return m
}

// weight is the frozen matrix with what is around it, or in the one scratch, unpacked, with room for that.
func (j *projection) weight() device.Matrix {
	if j.w.parts == nil {
		return j.w.dense
	}
	m := matrix(j.b.dequant, j.g.in+j.g.rank)
	for i, l := range j.g.parts {
		j.dequantise(&j.w.parts[i], below(m, l.row), l.out, j.g.in)
	}
	return m
}

func (p *pass) drops() bool { return p.train && p.n.dropout > 0 }

// lowRank computes u, behind x and where it is kept. One product serves all parts, unless dropout gives each an input of its own.
func (j *projection) lowRank(x device.Matrix) {
	g, u := j.g, right(x, j.g.in)
	if g.rank == 0 {
		return
	}
	if j.drops() {
		for i := range g.parts {
			if l := &g.parts[i]; l.rank > 0 {
				j.xwt(j.rows, l.cols(), g.in, 1, j.dropped(l, x), below(j.w.a, l.col), 0, right(u, l.col))
			}
		}
	} else {
		j.xwt(j.rows, g.rank, g.in, 1, x, j.w.a, 0, u)
	}
	if j.train && u != j.u {
		j.copyMatrix(u, j.u, j.rows, g.rank)
	}
}

// dropped is dropout(x), or x itself when nothing is dropped. The mask is drawn again wherever it is needed.
func (j *projection) dropped(l *part, x device.Matrix) device.Matrix {
	if !j.drops() {
		return x
	}
	j.dropout(x, j.b.xd, j.rows, j.g.in, l.site, 0)
	return matrix(j.b.xd, j.g.in)
}

// gradB computes dB = scale * dy^T u, and du behind dy, which gradA and gradX need.
func (j *projection) gradB(dy device.Matrix) {
	g := j.g
	if g.rank == 0 {
		return
	}
	for _, l := range g.parts {
		if l.rank > 0 {
			j.xtw(l.out, l.rank, j.rows, l.scale, right(dy, l.row), right(j.u, l.col), wide(j.grad(l.b), l.rank))
		}
	}
	j.xw(j.rows, g.rank, g.out, 1, dy, j.w.b, 0, right(dy, g.out))
}

// grad is a place in the flat gradient.
func (j *projection) grad(offset int) device.Ptr { return j.r.grad + device.Ptr(4*offset) }

// gradA computes dA = du^T dropout(x).
func (j *projection) gradA(x, dy device.Matrix) {
	g, du := j.g, right(dy, j.g.out)
	if g.rank == 0 {
		return
	}
	if j.drops() || len(g.parts) == 1 {
		for i := range g.parts {
			if l := &g.parts[i]; l.rank > 0 {
				j.xtw(l.rank, g.in, j.rows, 1, right(du, l.col), j.dropped(l, x), wide(j.grad(l.a), g.in))
			}
		}
		return
	}
	all := wide(j.b.da, g.in) // x is read once for all parts
	j.xtw(g.rank, g.in, j.rows, 1, du, x, all)
	for _, l := range g.parts {
		if l.rank > 0 {
			j.copy(j.grad(l.a), below(all, l.col).At, 4*int64(l.rank)*int64(g.in))
		}
	}
}

// gradX computes dx[rows,in] = dy W + du A. Dropout's mask lies on the latter alone, which is then a product of its own for each part.
func (j *projection) gradX(dy, dx device.Matrix) {
	g := j.g
	if !j.drops() || g.rank == 0 {
		j.xw(j.rows, g.in, g.out+g.rank, 1, dy, j.upright(), 0, dx)
		return
	}
	j.xw(j.rows, g.in, g.out, 1, dy, j.weight(), 0, dx)
	for i := range g.parts {
		if l := &g.parts[i]; l.rank > 0 {
			j.xw(j.rows, g.in, l.cols(), 1, right(dy, g.out+l.col), below(j.w.a, l.col), 0, matrix(j.b.dxa, g.in))
			j.dropoutAdd(dx, j.b.dxa, j.rows, g.in, l.site, 0)
		}
	}
}
