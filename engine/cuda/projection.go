package cuda

import "lorad/engine/cuda/device"

// projection is one group of a layer in a pass: y = x W^T + bias + scale * B(A(dropout(x))), part by part.
type projection struct {
	*pass
	g *group
	w *weights
	u device.Ptr // [rows,rank]: scale * A(dropout(x)) of all parts, kept for the backward pass
}

func (p *pass) projection(layer, stage int, k *kept) projection {
	return projection{p, &p.n.groups[layer][stage], &p.r.groups[layer][stage], k.u[stage]}
}

// project computes y[rows,out] of x[rows,in].
func (p *pass) project(layer, stage int, x, y device.Ptr, k *kept) {
	j := p.projection(layer, stage, k)
	g, out := j.g, matrix(y, j.g.out)
	var beta float32
	if g.bias {
		p.xw(p.rows, g.out, biasRows, 1, matrix(p.b.ones, biasRows), matrix(j.w.bias, g.out), 0, out)
		beta = 1
	}
	p.xwt(p.rows, g.out, g.in, 1, matrix(x, g.in), j.weight(), beta, out)
	j.lowRank(x)
	for i, l := range g.parts {
		if l.rank > 0 {
			p.xwt(p.rows, l.out, l.rank, 1, right(matrix(j.u, g.rank), l.col), matrix(j.w.b[i], l.rank), 1, right(out, l.row))
		}
	}
}

// weight is the frozen matrix, in the one scratch if it has to be unpacked.
func (j *projection) weight() device.Matrix {
	if j.w.parts == nil {
		return matrix(j.w.dense, j.g.in)
	}
	m := matrix(j.b.dequant, j.g.in)
	for i, l := range j.g.parts {
		j.dequantise(&j.w.parts[i], below(m, l.row).At, l.out, j.g.in)
	}
	return m
}

// together says whether one product serves all parts' lora_A: their inputs and scales are the same.
func (j *projection) together() bool {
	if j.drops() {
		return false
	}
	var scale float32
	for _, l := range j.g.parts {
		if l.rank > 0 && scale != 0 && l.scale != scale {
			return false
		}
		if l.rank > 0 {
			scale = l.scale
		}
	}
	return scale != 0
}

func (j *projection) drops() bool { return j.train && j.n.dropout > 0 }

// lowRank computes u.
func (j *projection) lowRank(x device.Ptr) {
	g, u, a := j.g, matrix(j.u, j.g.rank), matrix(j.w.a, j.g.in)
	if j.together() {
		j.xwt(j.rows, g.rank, g.in, j.scale(), matrix(x, g.in), a, 0, u)
		return
	}
	for i := range g.parts {
		if l := &g.parts[i]; l.rank > 0 {
			j.xwt(j.rows, l.rank, g.in, l.scale, matrix(j.dropped(l, x), g.in), below(a, l.col), 0, right(u, l.col))
		}
	}
}

// scale is the one that all parts have.
func (j *projection) scale() (s float32) {
	for _, l := range j.g.parts {
		if l.rank > 0 {
			s = l.scale
		}
	}
	return s
}

// dropped is dropout(x), or x itself when nothing is dropped. The mask is drawn again wherever it is needed.
func (j *projection) dropped(l *part, x device.Ptr) device.Ptr {
	if !j.drops() {
		return x
	}
	j.dropout(x, j.b.xd, j.rows, j.g.in, j.in.key, l.site)
	return j.b.xd
}

// gradB computes du = scale * dy B, which gradA and gradX need, and dB = dy^T u.
func (j *projection) gradB(dy device.Ptr) {
	g, d, du := j.g, matrix(dy, j.g.out), matrix(j.b.du, j.g.rank)
	for i, l := range g.parts {
		if l.rank == 0 {
			continue
		}
		mine := right(d, l.row)
		j.xw(j.rows, l.rank, l.out, l.scale, mine, matrix(j.w.b[i], l.rank), 0, right(du, l.col))
		j.xtw(l.out, l.rank, j.rows, mine, right(matrix(j.u, g.rank), l.col), wide(j.grad(l.b), l.rank))
	}
}

// grad is a place in the flat gradient.
func (j *projection) grad(offset int) device.Ptr { return j.r.grad + device.Ptr(4*offset) }

// gradA computes dA = du^T dropout(x).
func (j *projection) gradA(x device.Ptr) {
	g, du := j.g, matrix(j.b.du, j.g.rank)
	if g.rank == 0 {
		return
	}
	if j.drops() || len(g.parts) == 1 {
		for i := range g.parts {
			if l := &g.parts[i]; l.rank > 0 {
				j.xtw(l.rank, g.in, j.rows, right(du, l.col), matrix(j.dropped(l, x), g.in), wide(j.grad(l.a), g.in))
			}
		}
		return
	}
	all := wide(j.b.da, g.in) // x is read once for all parts
	j.xtw(g.rank, g.in, j.rows, du, matrix(x, g.in), all)
	for _, l := range g.parts {
		if l.rank > 0 {
			j.copy(j.grad(l.a), below(all, l.col).At, 4*int64(l.rank)*int64(g.in))
		}
	}
}

// gradX computes dx[rows,in] = dy W + du A, the latter under dropout's mask.
func (j *projection) gradX(dy, dx device.Ptr) {
	g, to, du, a := j.g, matrix(dx, j.g.in), matrix(j.b.du, j.g.rank), matrix(j.w.a, j.g.in)
	j.xw(j.rows, g.in, g.out, 1, matrix(dy, g.out), j.weight(), 0, to)
	switch {
	case g.rank == 0:
	case !j.drops():
		j.xw(j.rows, g.in, g.rank, 1, du, a, 1, to)
	default:
		for i := range g.parts {
			if l := &g.parts[i]; l.rank > 0 {
				j.xw(j.rows, g.in, l.rank, 1, right(du, l.col), below(a, l.col), 0, matrix(j.b.dxa, g.in))
				j.dropoutAdd(dx, j.b.dxa, j.rows, g.in, j.in.key, l.site)
			}
		}
	}
}
