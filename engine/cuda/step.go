package cuda

import "lorad/engine/cuda/device"

// pass is one sequence of launches: a step, or a part of one, over micro-batches of one shape.
type pass struct {
	*ops
	n  *network
	r  *resident
	b  *buffers
	in inputs
	shape
	cache *cache // of keys and values, unless whole sequences are computed
	train bool   // dropout is on, and layers keep what their backward pass needs
}

// kept is where a layer's activations are.
func (p *pass) kept(layer int) *kept {
	first := p.n.NumLayers - p.n.backward()
	if !p.train || layer < first {
		return &p.b.shared
	}
	return &p.b.layers[layer-first]
}

// forward leaves the residual stream after the last layer in two parts: x2 of the last layer, and t.
func (p *pass) forward() {
	first := p.kept(0)
	p.embed(p.in.ids, p.r.embed, first.x, p.rows, p.n.HiddenSize)
	for i := range p.n.NumLayers {
		k := p.kept(i)
		if i == 0 {
			p.norm(k.x, 0, p.r.norms[i][0], 0, p.b.n, k.rstd1, p.rows)
		} else {
			p.norm(p.kept(i-1).x2, p.b.t, p.r.norms[i][0], k.x, p.b.n, k.rstd1, p.rows)
		}
		p.attention(i, k)
		p.gateUp(i, k)
		p.swiglu(p.b.h, k.gu, p.rows, p.n.IntermediateSize)
		p.project(i, stageDown, p.b.h, matrix(p.b.t, p.n.HiddenSize), k)
	}
}

// attention goes from the normalised input n to the residual stream x2 and its normalised n.
func (p *pass) attention(i int, k *kept) {
	p.project(i, stageQKV, p.b.n, k.qkv, k)
	p.headNorm(i, k)
	p.rope(k.qkv, false)
	p.attend(i, k)
	p.project(i, stageO, k.o, matrix(p.b.t, p.n.HiddenSize), k)
	p.norm(k.x, p.b.t, p.r.norms[i][1], k.x2, p.b.n, k.rstd2, p.rows)
}

func (p *pass) gateUp(i int, k *kept) { p.project(i, stageGateUp, p.b.n, k.gu, k) }

// again makes what a layer has not kept. The launches are those of the forward pass, so the bits are too.
func (p *pass) again(i int, k *kept, l level) {
	h := p.r.norms[i]
	switch l {
	case keepInput:
		p.norm(k.x, 0, h[0], 0, p.b.n, k.rstd1, p.rows)
		p.attention(i, k)
		p.gateUp(i, k)
	case keepAttn:
		p.norm(k.x2, 0, h[1], 0, p.b.n, k.rstd2, p.rows)
		p.gateUp(i, k)
	default:
		p.norm(k.x2, 0, h[1], 0, p.b.n, k.rstd2, p.rows)
	}
}

// backward takes the gradient of the last layer's output in dres down to the lowest adapter.
func (p *pass) backward(recompute int) {
	first := p.n.lowest / stages
	for i := p.n.NumLayers - 1; i >= first; i-- {
		k := p.kept(i)
		p.again(i, k, levelOf(i-first, p.n.backward(), recompute))
		p.backwardMLP(i, k)
		if p.below(i, stageGateUp) {
			p.backwardAttention(i, k)
		}
	}
}

// below says whether something below a stage of a layer is trained, so that the gradient of the stage's input is needed.
func (p *pass) below(layer, stage int) bool { return stages*layer+stage > p.n.lowest }

// backwardMLP: dres is the gradient of the layer's output, and of x2 when it is done; n holds the MLP's normalised input.
func (p *pass) backwardMLP(i int, k *kept) {
	b, f := p.b, p.n.IntermediateSize
	down := p.projection(i, stageDown, k)
	down.gradB(b.dres)
	if !p.below(i, stageDown) {
		p.swiglu(b.h, k.gu, p.rows, f)
		down.gradA(b.h, b.dres)
		return
	}
	down.gradX(b.dres, b.h)
	p.swigluBackward(b.h, k.gu, p.rows, f)
	down.gradA(b.h, b.dres)
	gate := p.projection(i, stageGateUp, k)
	gate.gradB(k.gu)
	gate.gradA(b.n, k.gu)
	if p.below(i, stageGateUp) {
		gate.gradX(k.gu, matrix(b.dn, p.n.HiddenSize))
		p.normBackward(b.dn, k.x2, p.r.norms[i][1], k.rstd2, b.dres.At, b.dres, p.rows)
	}
}

func (p *pass) backwardAttention(i int, k *kept) {
	b, n := p.b, p.n
	o := p.projection(i, stageO, k)
	o.gradB(b.dres)
	o.gradA(k.o, b.dres)
	if !p.below(i, stageO) {
		return
	}
	o.gradX(b.dres, matrix(b.dattn, n.q))
	p.flashBackward(i, k)
	p.rope(b.dqkv, true)
	p.headNormBackward(i, k)
	qkv := p.projection(i, stageQKV, k)
	qkv.gradB(b.dqkv)
	p.norm(k.x, 0, p.r.norms[i][0], 0, b.n, k.rstd1, p.rows)
	qkv.gradA(b.n, b.dqkv)
	if p.below(i, stageQKV) {
		qkv.gradX(b.dqkv, matrix(b.dn, n.HiddenSize))
		p.normBackward(b.dn, k.x, p.r.norms[i][0], k.rstd1, b.dres.At, b.dres, p.rows)
	}
}

// head computes the losses of the labelled rows, a chunk at a time, and with train the gradient of the last layer's output.
func (p *pass) head(chunk int) {
	n, b := p.n, p.b
	h, v := n.HiddenSize, n.VocabSize
	last := p.kept(n.NumLayers - 1)
	below := p.train && n.backward() > 0
	if below {
		p.zero(b.dres.At, 2*int64(p.rows)*int64(b.dres.LD))
	}
	for lo := 0; lo < p.labelled; lo += chunk {
		rows, index := min(chunk, p.labelled-lo), p.in.index+device.Ptr(4*lo)
		p.logits(last, index, lo, rows)
		dlogits := b.dlogits
		if !p.train {
			dlogits = 0
		}
		p.crossEntropy(b.logits, p.in.want+device.Ptr(4*lo), b.losses+device.Ptr(4*lo), dlogits, p.in.scale, rows, v)
		if p.train {
			p.headGradient(lo, rows)
		}
		if below {
			p.xw(rows, h, v, 1, matrix(b.dlogits, v), matrix(p.r.head, h), 0, matrix(b.dh, h))
			p.throughHead(lo, rows)
			p.normBackward(b.dh, b.hr, p.r.norm, b.hrstd, 0, matrix(b.hd, h), rows)
			p.scatter(b.hd, index, b.dres, rows, h)
		}
	}
}

// logits of the rows that an index names, the first of which is number lo.
func (p *pass) logits(last *kept, index device.Ptr, lo, rows int) {
	n, b := p.n, p.b
	h, v := n.HiddenSize, n.VocabSize
	p.gather(last.x2, index, b.hx, rows, h)
	p.gather(b.t, index, b.hd, rows, h)
	p.norm(b.hx, b.hd, p.r.norm, b.hr, matrix(b.hn, h), b.hrstd, rows)
	p.xwt(rows, v, h, 1, matrix(b.hn, h), matrix(p.r.head, h), 0, wide(b.logits, v))
	p.adaptLogits(lo, rows)
}
