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
func (p *pass) norm(x, delta, w, resid device.Ptr, y device.Matrix, rstd device.Ptr, rows int) {
	p.launch("rmsnorm_forward", perRow(rows), x, delta, w, resid, y.At, rstd, rows, p.n.HiddenSize, y.LD, float32(p.n.RMSNormEps))
}

// normBackward is dx = dres + the gradient through the norm; dres is 0 or, as it lies in memory, dx.
func (p *pass) normBackward(dy, resid, w, rstd, dres device.Ptr, dx device.Matrix, rows int) {
	h := p.n.HiddenSize
	p.launch("rmsnorm_backward", perRow(rows), dy, h, resid, w, rstd, dres, dx.At, dx.LD, rows, h)
}

// headNorm normalises the heads of q and k in place and keeps them as they were; headNormBackward turns the gradient of its output into that of its input.
func (p *pass) headNorm(i int, k *kept) { p.headNorms("head_norm_forward", i, k.qkv, k) }

func (p *pass) headNormBackward(i int, k *kept) {
	p.headNorms("head_norm_backward", i, p.b.dqkv, k)
}

func (p *pass) headNorms(kernel string, i int, qkv device.Matrix, k *kept) {
	n, w := p.n, p.r.headNorms[i]
	if !n.QKNorm {
		return
	}
	heads := n.NumHeads + n.NumKVHeads
	p.launch(kernel, flat(p.rows*heads*n.HeadDim/8), qkv.At, qkv.LD, w[0], w[1], k.qk, n.q+n.kv, p.rows, n.NumHeads, heads, n.HeadDim, float32(n.RMSNormEps))
}

// rope rotates q and k in place.
func (p *pass) rope(qkv device.Matrix, inverse bool) {
	turn := 0
	if inverse {
		turn = 1
	}
	n, heads := p.n, p.n.NumHeads+p.n.NumKVHeads
	p.launch("rope", flat(p.rows*heads*n.turned()/16), qkv.At, qkv.LD, p.in.pos, p.b.cos, p.b.sin, p.rows, heads, n.HeadDim, n.turned(), turn)
}

func (o *ops) swiglu(h, gu device.Matrix, rows, n int) {
	o.launch("swiglu_forward", flat(rows*n/8), gu.At, h.At, rows, n, gu.LD, h.LD)
}

// swigluBackward replaces gate and up by their gradients, and that of h by h itself.
func (o *ops) swigluBackward(h, gu device.Matrix, rows, n int) {
	o.launch("swiglu_backward", flat(rows*n/8), h.At, gu.At, gu.At, h.At, rows, n, h.LD, gu.LD)
}

// gather copies the rows that index names together, zeros for -1; scatter copies rows back, none for -1.
func (o *ops) gather(x, index, y device.Ptr, rows, n int) {
	o.launch("gather_rows", perRow(rows), x, index, y, rows, n)
}

func (o *ops) scatter(x, index device.Ptr, y device.Matrix, rows, n int) {
	o.launch("scatter_rows", perRow(rows), x, index, y.At, y.LD, rows, n)
}

// copyMatrix copies [rows,cols] of 16-bit elements.
func (o *ops) copyMatrix(x, y device.Matrix, rows, cols int) {
	if rows*cols > 0 {
		o.launch("copy_matrix", flat(rows*cols/8), x.At, x.LD, y.At, y.LD, rows, cols)
	}
}

func (o *ops) crossEntropy(logits, labels, loss, dlogits, scale device.Ptr, rows, vocab int) {
	o.launch("cross_entropy", perRow(rows), logits, labels, loss, dlogits, scale, rows, vocab)
}

// dropout is y = mask*x/keep; dropoutAdd is dx += mask*x/keep. The rows are those of a site from the first on.
func (p *pass) dropout(x device.Matrix, y device.Ptr, rows, n, site, first int) {
	p.launch("dropout", flat(rows*n/8), x.At, x.LD, y, rows, n, float32(p.n.dropout), p.in.key, site, first)
}

func (p *pass) dropoutAdd(dx device.Matrix, x device.Ptr, rows, n, site, first int) {
	p.launch("dropout_add", flat(rows*n/8), dx.At, dx.LD, x, rows, n, float32(p.n.dropout), p.in.key, site, first)
}

// dequantise writes [rows,cols] of NF4 as bf16.
func (o *ops) dequantise(w *packed, to device.Matrix, rows, cols int) {
	o.launch("nf4_dequantise", flat(rows*cols/8), w.codes, w.absmax, w.scales, w.table, w.nested, to.At, rows, cols, to.LD)
}

// cast writes scale * [rows,cols] of f32 as bf16.
func (o *ops) cast(x device.Ptr, y device.Matrix, rows, cols int, scale float32) {
	o.launch("cast_bf16", flat(rows*cols), x, cols, y.At, y.LD, rows, cols, scale)
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

// attend is attention from qkv to o: of sequences to themselves, or of rows to the cache.
func (p *pass) attend(layer int, k *kept) {
	if p.use != whole && p.err == nil {
		p.err = p.decode(layer).Store(p.dev, k.qkv, p.in.place, p.cache.kv[layer], p.rows)
	}
	switch {
	case p.err != nil:
	case p.use == next:
		p.err = p.decode(layer).Attend(p.dev, k.qkv, p.cache.kv[layer], p.in.seen, p.cache.sums, p.cache.statistics, k.o)
	default:
		p.err = p.flash(layer).Forward(p.dev, p.in.parts, k.qkv, k.o, k.lse)
	}
}

func (p *pass) decode(layer int) kernels.Decode {
	n := p.n
	return kernels.Decode{HeadDim: n.HeadDim, Heads: n.NumHeads, KVHeads: n.NumKVHeads, Window: p.window(layer), Scale: n.scoreScale(), Sequences: p.rows, Capacity: p.cache.capacity}
}

// argmax writes which of a row's elements is the largest.
func (o *ops) argmax(x, best device.Ptr, rows, n int) {
	o.launch("argmax", device.Grid{Blocks: [3]int{rows}, Threads: 1024}, x, best, rows, n)
}

// flashBackward goes from dattn to dqkv.
func (p *pass) flashBackward(layer int, k *kept) {
	if b := p.b; p.err == nil {
		p.err = p.flash(layer).Backward(p.dev, p.in.parts, k.qkv, k.o, matrix(b.dattn, p.n.q), k.lse, b.delta, b.dqkv)
	}
}
