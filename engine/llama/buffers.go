package llama

import (
	"fmt"
	"unsafe"

	"lorad/engine"
	"lorad/engine/kernel"
)

// pass is what one forward pass runs over: rows of one or more sequences.
type pass struct {
	rows   int
	tokens []int32
	labels []int32
	starts []int32
}

func (p *pass) sequences() int            { return len(p.starts) - 1 }
func (p *pass) sequence(i int) (int, int) { return int(p.starts[i]), int(p.starts[i+1]) }

// activationBudget is how many bytes of activations a step keeps, before it computes them again instead, if nobody has said.
const activationBudget = 2 << 30

// act holds what one layer keeps for its backward pass. All are [rows, width] without gaps; u* are [rows, rank].
type act[T kernel.Float] struct {
	x, n1, q, k, v, o   []T // the residual stream on entry, normalised; rotated q and k; attention's output
	x2, n2, gate, up, h []T // the residual stream after attention, normalised; h = silu(gate)*up
	inv1, inv2, lse     []T // of the norms [rows], of attention [heads, rows]
	uq, uk, uv, uo      []T // scale * A(dropout(input)) of the adapters
	ugate, uup, udown   []T

	q0, k0       []T // before the norms of the heads, if there are any
	qInv, kInv   []T // [rows, heads]
	oRaw, mlpRaw []T // outputs before their norms, if there are any
	oInv, mlpInv []T
}

// buffers is all memory of a step. It grows to the largest batch seen.
type buffers[T kernel.Float] struct {
	rows, trainRows, headRows int // what there is room for

	acts []act[T] // [0] is shared by all layers that have no backward pass; the rest are layers lowest, lowest+1, ...
	last []T      // the residual stream after the last layer

	dres, dnorm, dq, dk, dv, dgate, dh []T
	drop, du                           []T
	rest, directed                     []T       // of DoRA: see there
	masks                              [][]uint8 // dropout of each adapter, a bit per element of its input
	partial                            []T       // gradients of a norm's weight, one row per block of rows
	fused                              []T       // the fused projections' output, or its gradient
	post                               []T       // an output that is being normalised, or the gradient before its norm
	dq0, dk0                           []T       // gradients before the norms of the heads

	labelled               []int32 // rows that carry loss
	targets                []int32
	hx, hn, hinv, dhx, dhn []T // the labelled rows: residual stream, normalised, and their gradients
	hu, logits             []T // of one chunk
	losses                 []float64

	grad  []T        // where Gradient writes
	key   engine.Key // of this step's draws
	drops bool       // dropout is on
	lean  bool       // layers do not keep n1, n2 and h, which are acts[0]'s
	again int        // so many of the layers with a backward pass keep only their input; their other slices are acts[0]'s
}

// newPass checks a batch: everything that is used as an index is in range afterwards.
func (m *Model[T]) newPass(b engine.Batch) (*pass, error) {
	n := len(b.Tokens)
	if len(b.Labels) != n || len(b.Starts) == 0 || b.Starts[0] != 0 || int(b.Starts[len(b.Starts)-1]) != n {
		return nil, fmt.Errorf("llama: batch: %d tokens, %d labels, starts %v: these do not fit together", n, len(b.Labels), b.Starts)
	}
	longest := 0
	for i, s := range b.Starts[1:] {
		if s <= b.Starts[i] {
			return nil, fmt.Errorf("llama: batch: sequence %d has no tokens; drop empty examples", i)
		}
		longest = max(longest, int(s-b.Starts[i]))
	}
	for i, t := range b.Tokens {
		if l := b.Labels[i]; t < 0 || int(t) >= m.cfg.VocabSize || l != engine.Ignore && (l < 0 || int(l) >= m.cfg.VocabSize) {
			return nil, fmt.Errorf("llama: batch: row %d: token %d, label %d: the vocabulary has %d; use the model's own tokenizer", i, t, l, m.cfg.VocabSize)
		}
	}
	m.reservePositions(longest)
	return &pass{rows: n, tokens: b.Tokens, labels: b.Labels, starts: b.Starts}, nil
}

// act is where layer i keeps its activations.
func (m *Model[T]) act(i int, train bool) *act[T] {
	if !train || i < m.lowest {
		return &m.buf.acts[0]
	}
	return &m.buf.acts[1+i-m.lowest]
}

// reserve makes room for a pass. A quarter more than asked for is taken, so that slowly growing batches do not allocate each time, unless Prepare
// has said how large they get.
func (m *Model[T]) reserve(rows int, train bool) {
	b, c := &m.buf, m.cfg
	if b.acts == nil {
		b.acts = make([]act[T], 1, 1+len(m.layers)-m.lowest)
		b.masks = make([][]uint8, m.sites)
	}
	if rows > b.rows {
		b.rows = m.more(rows)
		m.room(b.rows*c.HiddenSize, &b.last)
		if m.dora {
			m.room(b.rows*m.widestOutput(), &b.directed)
		}
		m.reserveFamily(b.rows)
		m.reserveAct(&b.acts[0], b.rows)
	}
	if train && rows > b.trainRows {
		b.trainRows = b.rows
		m.reserveActs(b.rows)
		m.reserveBackward(b.rows)
	}
	if b.drops && len(b.drop) < b.rows*m.widest() {
		m.reserveDropout(b.rows)
	}
}

func (m *Model[T]) reserveDropout(rows int) {
	m.room(rows*m.widest(), &m.buf.drop)
	if m.dora {
		m.room(rows*m.widest(), &m.buf.rest)
	}
	m.eachAdapter(func(l *linear[T]) {
		if n := (rows*l.in + 7) / 8; m.count != nil {
			*m.count += int64(n)
		} else {
			m.buf.masks[l.site] = make([]uint8, n)
		}
	})
}

func (m *Model[T]) more(rows int) int {
	if m.exact {
		return rows
	}
	return rows + rows/4
}

// leanFrom is the number of activations in h, 8 MiB of them in f32, from which layers do not keep what a step can compute again in about
// the time that it takes to write it to memory and read it back: the normalised inputs and the MLP's hidden activations, a third of all. Below,
// they stay in the cache.
const leanFrom = 1 << 21

func (m *Model[T]) isLean(rows int) bool { return rows*m.cfg.IntermediateSize >= m.leanFrom }

// reserveActs gives each layer with a backward pass activations of its own; those that the budget has no room for keep their input only.
func (m *Model[T]) reserveActs(rows int) {
	b := &m.buf
	b.acts = b.acts[:cap(b.acts)]
	b.lean = m.isLean(rows)
	layer, input := m.layerBytes(rows)
	b.again = recomputed(len(b.acts)-1, layer, input, m.budget)
	for i := range b.acts[1:] {
		a := &b.acts[1+i]
		if i < b.again {
			*a = b.acts[0]
			m.room(rows*m.cfg.HiddenSize, &a.x)
		} else {
			m.reserveOwn(a, rows)
		}
	}
}

// layerBytes is what a layer keeps for its backward pass, and what it keeps if the rest is computed again.
func (m *Model[T]) layerBytes(rows int) (all, input int64) {
	size := int64(unsafe.Sizeof(T(0)))
	return int64(rows) * int64(m.actWidth(rows)) * size, int64(rows) * int64(m.cfg.HiddenSize) * size
}

// recomputed is how many of the layers have to be computed again so that the rest fits into the budget; all, if nothing fits.
func recomputed(layers int, layer, input, budget int64) int {
	for n := range layers {
		if int64(n)*input+int64(layers-n)*layer <= budget {
			return n
		}
	}
	return layers
}

// actWidth is the number of activations that a layer keeps per row.
func (m *Model[T]) actWidth(rows int) int {
	c, shared := m.cfg, 0
	if m.isLean(rows) {
		shared = 2*c.HiddenSize + c.IntermediateSize
	}
	return 4*c.HiddenSize + 2*(c.NumHeads+c.NumKVHeads)*c.HeadDim + 3*c.IntermediateSize + 2 + c.NumHeads + 7*m.rank + m.familyWidth() - shared
}

// reserveAct gives all activations of one layer a place.
func (m *Model[T]) reserveAct(a *act[T], rows int) {
	m.reserveKept(a, rows)
	m.room(rows*m.cfg.HiddenSize, &a.n1, &a.n2)
	m.room(rows*m.cfg.IntermediateSize, &a.h)
}

// reserveOwn gives a layer's backward pass what it keeps.
func (m *Model[T]) reserveOwn(a *act[T], rows int) {
	if !m.buf.lean {
		m.reserveAct(a, rows)
		return
	}
	m.reserveKept(a, rows)
	shared := &m.buf.acts[0]
	a.n1, a.n2, a.h = shared.n1, shared.n2, shared.h
}

func (m *Model[T]) reserveKept(a *act[T], rows int) {
	c := m.cfg
	hidden, qd, kvd, ffn := rows*c.HiddenSize, rows*c.NumHeads*c.HeadDim, rows*c.NumKVHeads*c.HeadDim, rows*c.IntermediateSize
	m.room(hidden, &a.x, &a.x2)
	m.room(qd, &a.q, &a.o)
	m.room(kvd, &a.k, &a.v)
	m.room(ffn, &a.gate, &a.up)
	m.room(rows, &a.inv1, &a.inv2)
	m.room(rows*c.NumHeads, &a.lse)
	m.room(rows*m.rank, &a.uq, &a.uk, &a.uv, &a.uo, &a.ugate, &a.uup, &a.udown)
	m.reserveFamilyAct(a, rows)
}

func (m *Model[T]) reserveBackward(rows int) {
	b, c := &m.buf, m.cfg
	m.room(rows*c.HiddenSize, &b.dres, &b.dnorm)
	m.room(rows*c.NumHeads*c.HeadDim, &b.dq)
	m.room(rows*c.NumKVHeads*c.HeadDim, &b.dk, &b.dv)
	m.room(rows*c.IntermediateSize, &b.dgate, &b.dh)
	m.room(rows*m.rank, &b.du)
	m.room((rows/rowBlock+1)*max(c.HiddenSize, (c.NumHeads+1)*c.HeadDim), &b.partial)
	if c.QKNorm {
		m.room(rows*c.NumHeads*c.HeadDim, &b.dq0)
		m.room(rows*c.NumKVHeads*c.HeadDim, &b.dk0)
	}
}

// reserveHead makes room for a number of labelled rows.
func (m *Model[T]) reserveHead(rows int) {
	b, c := &m.buf, m.cfg
	if rows <= b.headRows {
		return
	}
	b.headRows = m.more(rows)
	m.room(b.headRows*c.HiddenSize, &b.hx, &b.hn, &b.dhx, &b.dhn)
	m.room(b.headRows, &b.hinv)
	chunk := min(m.headChunk(), b.headRows)
	m.room(chunk*m.rank, &b.hu)
	m.room(chunk*c.VocabSize, &b.logits)
	b.losses = make([]float64, b.headRows)
}

// widest is the widest input of a linear layer.
func (m *Model[T]) widest() int {
	return max(m.cfg.HiddenSize, m.cfg.IntermediateSize, m.cfg.NumHeads*m.cfg.HeadDim)
}

// widestOutput is the widest output of a linear layer but the head.
func (m *Model[T]) widestOutput() int {
	c := m.cfg
	if c.Fused {
		return max(2*c.IntermediateSize, (c.NumHeads+2*c.NumKVHeads)*c.HeadDim, c.HiddenSize)
	}
	return m.widest()
}

// room takes memory for n values each, or only counts it: see Measure.
func (m *Model[T]) room(n int, to ...*[]T) {
	for _, p := range to {
		if m.count != nil {
			*m.count += int64(n) * int64(unsafe.Sizeof(T(0)))
			continue
		}
		*p = make([]T, n)
	}
}
