package cuda

import (
	"lorad/engine/cuda/device"
	"lorad/engine/quant"
)

// alignment of everything in device memory, in bytes.
const alignment = 256

func aligned(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// carver cuts an allocation into places. Carving an allocation at 0 only counts: so a plan and what is taken cannot differ.
type carver struct {
	base device.Ptr
	used int64
}

func (c *carver) bytes(n int64) device.Ptr {
	p := c.base + device.Ptr(c.used)
	c.used += aligned(n)
	return p
}

func (c *carver) bf16(rows, cols int) device.Ptr { return c.bytes(2 * int64(rows) * int64(cols)) }
func (c *carver) f32(n int) device.Ptr           { return c.bytes(4 * int64(n)) }

// matrix has room for more columns right of its own.
func (c *carver) matrix(rows, cols, more int) device.Matrix {
	return matrix(c.bf16(rows, cols+more), cols+more)
}

// packed is an NF4 matrix in device memory.
type packed struct {
	codes  device.Ptr // two to a byte
	absmax device.Ptr // f32 scales, or those of the nested scales
	scales device.Ptr // nested: 8-bit scales, else 0
	table  device.Ptr // nested: what those 256 codes stand for, and behind them the offset
	nested int        // nested: scales per scale of theirs
	block  int        // values per scale
}

// weights of a group: one matrix, or the parts in NF4.
type weights struct {
	dense device.Matrix // [out+rank,in+rank]: the frozen weight, b right of it, a below it
	parts []packed
	bias  device.Ptr    // [8,out], of which the first row counts
	a     device.Matrix // [rank,in]: lora_A of all parts, one below the other
	b     device.Matrix // [out,rank]: scale * lora_B of all parts: each has rows and columns of its own, with zeros beside it
}

// resident is what stays in device memory from step to step.
type resident struct {
	embed, head, norm device.Ptr // the head is the embedding if they are tied
	norms             [][2]device.Ptr
	headNorms         [][2]device.Ptr // of the heads of q and of k; 0: none
	groups            [][stages]weights
	headAdapter       weights    // a and b alone
	params, grad      device.Ptr // f32, flat: what Params and Gradient have; in one place, as params are read only until copies are made of them
	sum, units        device.Ptr // i64 and i8, flat: of a step's gradients, see sum
}

// biasRows is how many rows a bias is stored with, so that products with it are aligned.
const biasRows = 8

func (n *network) carveWeights(c *carver) (r resident) {
	h := n.HiddenSize
	r.embed = c.bf16(n.VocabSize, h)
	if r.head = r.embed; !n.TieEmbeddings {
		r.head = c.bf16(n.VocabSize, h)
	}
	r.headAdapter = weights{a: c.matrix(n.head.rank, h, 0), b: c.matrix(n.VocabSize, n.head.rank, 0)}
	r.norm = c.bf16(1, h)
	r.norms, r.headNorms, r.groups = make([][2]device.Ptr, n.NumLayers), make([][2]device.Ptr, n.NumLayers), make([][stages]weights, n.NumLayers)
	for i := range n.groups {
		r.norms[i] = [2]device.Ptr{c.bf16(1, h), c.bf16(1, h)}
		if n.QKNorm {
			r.headNorms[i] = [2]device.Ptr{c.bf16(1, n.HeadDim), c.bf16(1, n.HeadDim)}
		}
		for s := range stages {
			r.groups[i][s] = n.carveGroup(c, &n.groups[i][s])
		}
	}
	return r
}

func (n *network) carveGroup(c *carver, g *group) (w weights) {
	if g.bias {
		w.bias = c.bf16(biasRows, g.out)
	}
	if !n.fourBit {
		w.dense = c.matrix(g.out+g.rank, g.in, g.rank)
		w.a, w.b = below(w.dense, g.out), right(w.dense, g.in)
		return w
	}
	w.a, w.b = c.matrix(g.rank, g.in, 0), c.matrix(g.out, g.rank, 0)
	for _, p := range g.parts {
		w.parts = append(w.parts, n.carvePacked(c, p.out*g.in))
	}
	return w
}

func (n *network) carvePacked(c *carver, values int) packed {
	blocks := (values + quant.Block - 1) / quant.Block
	p := packed{codes: c.bytes(int64(values+1) / 2), block: quant.Block}
	if !n.nested {
		p.absmax = c.f32(blocks)
		return p
	}
	p.nested = quant.NestedBlock
	p.scales, p.absmax, p.table = c.bytes(int64(blocks)), c.f32((blocks+quant.NestedBlock-1)/quant.NestedBlock), c.f32(256+1)
	return p
}

// carveAdapters is the flat vector or its gradient, and a sum of gradients.
func (n *network) carveAdapters(c *carver, r *resident) {
	r.params = c.f32(n.trainable())
	if r.grad = r.params; !n.frozen {
		r.sum, r.units = c.f32(2*n.trainable()), c.bytes(int64(n.trainable()))
	}
}

// kept is what a layer keeps for its backward pass. All are bf16 [rows, width], but for the last three. A matrix that is the input of a product or its
// gradient has room for u or du behind it: see projection.
type kept struct {
	x, x2        device.Ptr         // the residual stream on entry, and after attention
	qkv          device.Matrix      // rotated q and k, and v
	o, gu        device.Matrix      // attention's output; gate and up, and later their gradient
	qk           device.Ptr         // [rows,qk]: q and k before the norms of their heads, where there are any
	u            [stages]device.Ptr // but that of o, which is behind it
	lse          device.Ptr         // [heads,rows]
	rstd1, rstd2 device.Ptr         // [rows]
}

// buffers is the memory of a pass.
type buffers struct {
	shared kept   // of layers that keep nothing, or not all
	layers []kept // of those with a backward pass, from the lowest

	n          device.Matrix // [rows,hidden]: normalised input
	t          device.Ptr    // [rows,hidden]: output of attention or the MLP
	h          device.Matrix // [rows,ffn]: hidden activations of the MLP, and their gradient
	dequant    device.Ptr    // [out+rank,in+rank]: one group's weight, when it is in NF4
	dres       device.Matrix // [rows,hidden]: gradient of the residual stream
	dn         device.Ptr    // [rows,hidden]: gradient of a normalised input
	dattn      device.Ptr    // [rows,q]: of attention's output
	dqkv       device.Matrix // [rows,qkv]
	delta      device.Ptr    // [heads,rows]: rows of dO times those of O
	da         device.Ptr    // [rank,in], f32: gradients of lora_A of all parts
	xd, dxa    device.Ptr    // [rows,in]: dropped input, and its gradient
	cos, sin   device.Ptr    // [tables*positions, turned/2], f32
	flag       device.Ptr    // i32: see checkRange; the losses follow
	losses     device.Ptr    // [labelled], f32
	ones       device.Ptr    // [rows,8], the first column 1: turns a bias into a matrix; 0 without biases
	inputs     device.Ptr    // see inputs
	hx, hd, hr device.Ptr    // [chunk,hidden]: the head's rows of the residual stream: before the last layer's output is added, that output, and the sum
	hn, dh     device.Ptr    // [chunk,hidden]: normalised; gradient of that
	hrstd      device.Ptr    // [chunk]
	hu, hdu    device.Matrix // [chunk,rank] of the head's adapter
	logits     device.Ptr    // [chunk,vocab], f32
	dlogits    device.Ptr    // [chunk,vocab]
}

// carvePass is the memory of a training step, level by level of recomputation: see Plan.Recompute.
func (n *network) carvePass(c *carver, s size, recompute int) (b buffers, keptBytes int64) {
	h, f := n.HiddenSize, n.IntermediateSize
	b.shared = n.carveKept(c, s.rows, kept{}, keepAll)
	before := c.used
	for i := range n.backward() {
		b.layers = append(b.layers, n.carveKept(c, s.rows, b.shared, levelOf(i, n.backward(), recompute)))
	}
	keptBytes = c.used - before
	b.n, b.t = c.matrix(s.rows, h, n.groupRank(stageQKV, stageGateUp)), c.bf16(s.rows, h)
	b.h = c.matrix(s.rows, f, n.groupRank(stageDown))
	b.dres, b.dn = c.matrix(s.rows, h, n.groupRank(stageO, stageDown)), c.bf16(s.rows, h)
	b.dattn, b.dqkv = c.bf16(s.rows, n.q), c.matrix(s.rows, n.qkv, n.groupRank(stageQKV))
	b.delta = c.f32(n.NumHeads * s.rows)
	b.da = c.f32(n.groupRank(stageQKV, stageO, stageGateUp, stageDown) * max(h, f, n.q))
	if n.dropout > 0 {
		b.xd, b.dxa = c.bf16(s.rows, max(h, f, n.q)), c.bf16(s.rows, max(h, f, n.q))
	}
	if n.fourBit {
		b.dequant = c.bf16(1, n.largestGroup())
	}
	angles := n.tables(s.longest) * s.longest * n.turned() / 2
	b.cos, b.sin = c.f32(angles), c.f32(angles)
	if n.QKVBias {
		b.ones = c.bf16(s.rows, biasRows)
	}
	b.flag, b.inputs = c.f32(1+s.labelled), c.bytes(inputBytes(s))
	b.losses = b.flag + 4
	n.carveHead(c, &b, s.chunk(n))
	return b, keptBytes
}

func (n *network) carveHead(c *carver, b *buffers, chunk int) {
	h := n.HiddenSize
	b.hx, b.hd, b.hr, b.hn, b.dh = c.bf16(chunk, h), c.bf16(chunk, h), c.bf16(chunk, h), c.bf16(chunk, h), c.bf16(chunk, h)
	b.hu, b.hdu = c.matrix(chunk, n.head.rank, 0), c.matrix(chunk, n.head.rank, 0)
	b.hrstd = c.f32(chunk)
	b.logits, b.dlogits = c.f32(chunk*n.VocabSize), c.bf16(chunk, n.VocabSize)
}

// carveKept gives a layer what its level keeps; the rest is the shared layer's.
func (n *network) carveKept(c *carver, rows int, shared kept, l level) kept {
	k := shared
	k.x = c.bf16(rows, n.HiddenSize)
	for s := range stages {
		if s != stageO {
			k.u[s] = c.bf16(rows, n.groupRank(s))
		}
	}
	if l == keepInput {
		return k
	}
	k.x2, k.qkv, k.o = c.bf16(rows, n.HiddenSize), c.matrix(rows, n.qkv, 0), c.matrix(rows, n.q, n.groupRank(stageO))
	if n.QKNorm {
		k.qk = c.bf16(rows, n.q+n.kv)
	}
	k.lse, k.rstd1, k.rstd2 = c.f32(n.NumHeads*rows), c.f32(rows), c.f32(rows)
	if l == keepAll {
		k.gu = c.matrix(rows, 2*n.IntermediateSize, n.groupRank(stageGateUp))
	}
	return k
}

// groupRank is the largest rank of some stages' groups.
func (n *network) groupRank(of ...int) (r int) {
	for i := range n.groups {
		for _, s := range of {
			r = max(r, n.groups[i][s].rank)
		}
	}
	return r
}

// largestGroup is the elements of the largest weight, with its adapters around it.
func (n *network) largestGroup() (most int) {
	for i := range n.groups {
		for _, g := range n.groups[i] {
			most = max(most, (g.out+g.rank)*(g.in+g.rank))
		}
	}
	return most
}
