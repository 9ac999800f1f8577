package cuda

import (
	"lorad/engine/cuda/device"
	"lorad/engine/cuda/kernels"
)

// How kernels are launched. Each method is one kernel of package kernels, whose source says what it computes; here is how many threads do it.

// threads of a block, for kernels that leave it to the caller.
const threads = 256

// perRow is a block for each row; flat is a thread for each of n elements.
func perRow(rows int) device.Grid { return device.Grid{Blocks: [3]int{rows}, Threads: threads} }
func flat(n int) device.Grid {
	return device.Grid{Blocks: [3]int{(n + threads - 1) / threads}, Threads: threads}
}

func (o *ops) embed(ids, table, x device.Ptr, rows, hidden int) {
	o.launch("embed_gather", perRow(rows), ids, table, x, rows, hidden)
}

// norm is y = w * bf16(s/rms(s)) of s = x + delta, which it writes to resid unless that is 0; delta 0: s is x.
func (p *pass) norm(x, delta, w, resid, y, rstd device.Ptr, rows int) {
	h := p.n.HiddenSize
	p.launch("rmsnorm_forward", perRow(rows), x, delta, w, resid, y, rstd, rows, h, h, float32(p.n.RMSNormEps))
}

// normBackward is dx = dres + the gradient through the norm; dx may be dres.
func (p *pass) normBackward(dy, resid, w, rstd, dres, dx device.Ptr, rows int) {
	h := p.n.HiddenSize
	p.launch("rmsnorm_backward", perRow(rows), dy, h, resid, w, rstd, dres, dx, rows, h)
}

// headNorm normalises the heads of q and k in place and keeps them as they were; headNormBackward turns the gradient of its output into that of its input.
func (p *pass) headNorm(i int, k *kept) { p.headNorms("head_norm_forward", i, k.qkv, k) }

func (p *pass) headNormBackward(i int, k *kept) {
	p.headNorms("head_norm_backward", i, p.b.dqkv, k)
}

func (p *pass) headNorms(kernel string, i int, qkv device.Ptr, k *kept) {
	n, w := p.n, p.r.headNorms[i]
	if !n.QKNorm {
		return
	}
	heads := n.NumHeads + n.NumKVHeads
	p.launch(kernel, flat(p.rows*heads*n.HeadDim/8), qkv, n.qkv, w[0], w[1], k.qk, n.q+n.kv, p.rows, n.NumHeads, heads, n.HeadDim, float32(n.RMSNormEps))
}

// rope rotates q and k in place.
func (p *pass) rope(qkv device.Ptr, inverse bool) {
	turn := 0
	if inverse {
		turn = 1
	}
	n, heads := p.n, p.n.NumHeads+p.n.NumKVHeads
	p.launch("rope", flat(p.rows*heads*n.turned()/16), qkv, n.qkv, p.in.pos, p.b.cos, p.b.sin, p.rows, heads, n.HeadDim, n.turned(), turn)
}

func (o *ops) swiglu(h, gu device.Ptr, rows, n int) {
	o.launch("swiglu_forward", flat(rows*n/8), gu, h, rows, n, 2*n, n)
}

// swigluBackward is the gradient by gate and up, and h again; dgu may be gu, and h may be dh.
func (o *ops) swigluBackward(dh, gu, dgu, h device.Ptr, rows, n int) {
	o.launch("swiglu_backward", flat(rows*n/8), dh, gu, dgu, h, rows, n, n, 2*n)
}

// gather copies the rows that index names together, zeros for -1; scatter copies rows back, none for -1.
func (o *ops) gather(x, index, y device.Ptr, rows, n int) {
	o.launch("gather_rows", perRow(rows), x, index, y, rows, n)
}

func (o *ops) scatter(x, index, y device.Ptr, rows, n int) {
	o.launch("scatter_rows", perRow(rows), x, index, y, rows, n)
}

func (o *ops) crossEntropy(logits, labels, loss, dlogits, scale device.Ptr, rows, vocab int) {
	o.launch("cross_entropy", perRow(rows), logits, labels, loss, dlogits, scale, rows, vocab)
}

// dropout is y = mask*x/keep; dropoutAdd is dx += mask*x/keep.
func (p *pass) dropout(x, y device.Ptr, rows, n int, key device.Ptr, site int) {
	p.launch("dropout", flat(rows*n/8), x, y, rows, n, float32(p.n.dropout), key, site)
}

func (p *pass) dropoutAdd(dx, x device.Ptr, rows, n int, key device.Ptr, site int) {
	p.launch("dropout_add", flat(rows*n/8), dx, x, rows, n, float32(p.n.dropout), key, site)
}

// dequantise writes [rows,cols] of NF4 as bf16.
func (o *ops) dequantise(w *packed, to device.Ptr, rows, cols int) {
	o.launch("nf4_dequantise", flat(rows*cols/8), w.codes, w.absmax, w.scales, w.table, w.nested, to, rows, cols, cols)
}

// cast writes [rows,cols] of f32 as bf16.
func (o *ops) cast(x, y device.Ptr, rows, cols int) {
	o.launch("cast_bf16", flat(rows*cols), x, cols, y, cols, rows, cols, float32(1))
}

func (p *pass) window(layer int) int {
	if layer < len(p.n.Sliding) && p.n.Sliding[layer] {
		return p.n.Window
	}
	return 0
}

func (p *pass) flash(layer int) kernels.Flash {
	n := p.n
	return kernels.Flash{HeadDim: n.HeadDim, Heads: n.NumHeads, KVHeads: n.NumKVHeads, Window: p.window(layer), Scale: n.scoreScale(), Rows: p.rows, Parts: p.parts}
}

func (p *pass) flashForward(layer int, k *kept) {
	if n := p.n; p.err == nil {
		p.err = p.flash(layer).Forward(p.dev, p.in.parts, matrix(k.qkv, n.qkv), matrix(k.o, n.q), k.lse)
	}
}

// flashBackward goes from dattn to dqkv.
func (p *pass) flashBackward(layer int, k *kept) {
	if n, b := p.n, p.b; p.err == nil {
		qkv, o, dout, dqkv := matrix(k.qkv, n.qkv), matrix(k.o, n.q), matrix(b.dattn, n.q), matrix(b.dqkv, n.qkv)
		p.err = p.flash(layer).Backward(p.dev, p.in.parts, qkv, o, dout, k.lse, b.delta, dqkv)
	}
}
