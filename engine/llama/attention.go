package llama

import (
	"sync"

	"lorad/engine/kernel"
)

// queryBlock is how many queries are scored at once. Larger blocks make better products; smaller ones compute fewer scores that
// the causal mask then drops. At 30 to 256 tokens 32 costs 5% less per step than 64.
const queryBlock = 32

// attend computes causal attention of a pass, one (sequence, key-value head) at a time. q and k are rotated in place.
func (m *Model[T]) attend(l *layer[T], p *pass, a *act[T]) {
	defer m.profile.enter(m.profile.enter(Attention))
	kv := m.cfg.NumKVHeads
	m.ops.Parallel(p.sequences()*kv, func(i int) {
		lo, hi := p.sequence(i / kv)
		h := m.headOf(l, i%kv, 0, lo, hi, p, a)
		h.forward(m)
	})
}

// attendCached is attend for sequences of which the streams have seen the beginning; new keys and values join those that they keep.
func (m *Model[T]) attendCached(layer int, p *pass, live []*stream[T], a *act[T]) {
	defer m.profile.enter(m.profile.enter(Attention))
	kv, width := m.cfg.NumKVHeads, m.cfg.NumKVHeads*m.cfg.HeadDim
	for i, s := range live {
		lo, hi := p.sequence(i)
		s.kv[layer].put(s.past, width, a.k[lo*width:hi*width], a.v[lo*width:hi*width])
	}
	m.ops.Parallel(len(live)*kv, func(i int) {
		s := live[i/kv]
		lo, hi := p.sequence(i / kv)
		h := m.headOf(&m.layers[layer], i%kv, s.past, lo, hi, p, a)
		h.k, h.v = s.kv[layer].k[i%kv*h.d:], s.kv[layer].v[i%kv*h.d:]
		if h.n == 1 {
			h.one(m)
		} else {
			h.forward(m)
		}
	})
}

// attendBackward turns dq, which comes as the gradient of attention's output, into the gradient of q before rotation, in place;
// dk and dv are overwritten.
func (m *Model[T]) attendBackward(l *layer[T], p *pass, a *act[T], dq, dk, dv []T) {
	defer m.profile.enter(m.profile.enter(Attention))
	kv := m.cfg.NumKVHeads
	m.ops.Parallel(p.sequences()*kv, func(i int) {
		lo, hi := p.sequence(i / kv)
		h := m.headOf(l, i%kv, 0, lo, hi, p, a)
		h.backward(m, dq[h.qAt:], dk[h.kAt:], dv[h.kAt:])
	})
}

// headGroup is one key-value head of one sequence with the query heads that share it. Slices start at the first row.
type headGroup[T kernel.Float] struct {
	n, past    int // new rows; rows before them in the cache
	d          int
	shared     int // query heads
	qld, kld   int
	qAt, kAt   int // of the first new row, in q and in k
	q, k, v, o []T // q, o: [n, shared*d] strided; k, v: [past+n, d] strided
	lse        []T // [shared, n] with stride lseLd
	lseLd      int
	window     int // 0: none
	softcap    T   // of the scores; 0: none
	rope       *rope[T]
}

func (m *Model[T]) headOf(l *layer[T], kvHead, past, lo, hi int, p *pass, a *act[T]) headGroup[T] {
	c := m.cfg
	h := headGroup[T]{n: hi - lo, past: past, d: c.HeadDim, softcap: T(c.AttnSoftcap), shared: c.NumHeads / c.NumKVHeads,
		qld: c.NumHeads * c.HeadDim, kld: c.NumKVHeads * c.HeadDim, lseLd: p.rows, window: l.window, rope: l.rope.of(past + hi - lo)}
	h.qAt, h.kAt = lo*h.qld+kvHead*h.shared*h.d, lo*h.kld+kvHead*h.d
	h.q, h.o = a.q[h.qAt:], a.o[h.qAt:]
	h.k, h.v = a.k[h.kAt:], a.v[h.kAt:]
	h.lse = a.lse[kvHead*h.shared*p.rows+lo:]
	return h
}

func (h *headGroup[T]) forward(m *Model[T]) {
	cos, sin := h.rope.from(h.past)
	m.ops.Rope(h.n, h.rope.turned, h.k[h.past*h.kld:], h.kld, cos, sin, false)
	s := m.free.get(queryBlock * (h.past + h.n))
	defer m.free.put(s)
	for j := range h.shared {
		q, o := h.q[j*h.d:], h.o[j*h.d:]
		m.ops.Rope(h.n, h.rope.turned, q, h.qld, cos, sin, false)
		for i := 0; i < h.n; i += queryBlock {
			from := h.firstSeen(h.past + i)
			rows, cols := min(queryBlock, h.n-i), h.past+min(i+queryBlock, h.n)-from
			m.ops.Gemm1(false, true, rows, cols, h.d, q[i*h.qld:], h.qld, h.k[from*h.kld:], h.kld, s, cols, false)
			h.softmax(m, rows, cols, h.past+i-from, s, h.lse[j*h.lseLd+i:])
			m.ops.Gemm1(false, false, rows, h.d, cols, s, cols, h.v[from*h.kld:], h.kld, o[i*h.qld:], h.qld, false)
		}
	}
}

// one is forward for a single new row: query heads that share keys and values look at them together.
func (h *headGroup[T]) one(m *Model[T]) {
	from := h.firstSeen(h.past)
	cols := h.past + 1 - from
	cos, sin := h.rope.from(h.past)
	m.ops.Rope(1, h.rope.turned, h.k[h.past*h.kld:], h.kld, cos, sin, false)
	s := m.free.get(h.shared * cols)
	defer m.free.put(s)
	for j := range h.shared {
		m.ops.Rope(1, h.rope.turned, h.q[j*h.d:], h.d, cos, sin, false)
	}
	m.ops.Gemm1(false, true, h.shared, cols, h.d, h.q, h.d, h.k[from*h.kld:], h.kld, s, cols, false)
	scale := h.capped(s[:h.shared*cols])
	for j := range h.shared {
		m.ops.CausalSoftmax(1, cols, cols-1, s[j*cols:], cols, scale, h.lse[j*h.lseLd:])
	}
	m.ops.Gemm1(false, false, h.shared, h.d, cols, s, cols, h.v[from*h.kld:], h.kld, h.o, h.d, false)
}

// backward recomputes the scores block by block. For each block, with P = softmax(S): dV += P^T dO, dP = dO V^T, dS by the softmax,
// dQ = dS K, dK += dS^T Q. dO of a block is read before dQ of the same block takes its place.
func (h *headGroup[T]) backward(m *Model[T], dq, dk, dv []T) {
	s, dp := m.free.get(queryBlock*h.n), m.free.get(queryBlock*h.n)
	defer m.free.put(s)
	defer m.free.put(dp)
	for i := range h.n {
		clear(dk[i*h.kld : i*h.kld+h.d])
		clear(dv[i*h.kld : i*h.kld+h.d])
	}
	for j := range h.shared {
		q, g := h.q[j*h.d:], dq[j*h.d:]
		for i := 0; i < h.n; i += queryBlock {
			from := h.firstSeen(i)
			rows, cols := min(queryBlock, h.n-i), min(i+queryBlock, h.n)-from
			qi, gi, k, v, at := q[i*h.qld:], g[i*h.qld:], h.k[from*h.kld:], h.v[from*h.kld:], from*h.kld
			m.ops.Gemm1(false, true, rows, cols, h.d, qi, h.qld, k, h.kld, s, cols, false)
			m.ops.Gemm1(false, true, rows, cols, h.d, gi, h.qld, v, h.kld, dp, cols, false)
			h.softmaxBackward(m, rows, cols, i-from, s, dp, h.lse[j*h.lseLd+i:])
			m.ops.Gemm1(true, false, cols, h.d, rows, s, cols, gi, h.qld, dv[at:], h.kld, true)
			m.ops.Gemm1(false, false, rows, h.d, cols, dp, cols, k, h.kld, gi, h.qld, false)
			m.ops.Gemm1(true, false, cols, h.d, rows, dp, cols, qi, h.qld, dk[at:], h.kld, true)
		}
		m.ops.Rope(h.n, h.rope.turned, g, h.qld, h.rope.cos, h.rope.sin, true)
	}
	m.ops.Rope(h.n, h.rope.turned, dk, h.kld, h.rope.cos, h.rope.sin, true)
}

// firstSeen is the first position that the query at position i sees.
func (h *headGroup[T]) firstSeen(i int) int {
	if h.window == 0 {
		return 0
	}
	return max(0, i-h.window+1)
}

// softmax is CausalSoftmax with the window's edge: what a row no longer sees becomes 0 and is never read. Row by row, for the edge
// moves with the row.
func (h *headGroup[T]) softmax(m *Model[T], rows, cols, first int, s, lse []T) {
	scale := h.capped(s[:rows*cols])
	if h.window == 0 || first+rows <= h.window {
		m.ops.CausalSoftmax(rows, cols, first, s, cols, scale, lse)
		return
	}
	for r := range rows {
		row, past := s[r*cols:], max(0, first+r-h.window+1)
		clear(row[:past])
		m.ops.CausalSoftmax(1, cols-past, first+r-past, row[past:], cols, scale, lse[r:])
	}
}

func (h *headGroup[T]) softmaxBackward(m *Model[T], rows, cols, first int, s, dp, lse []T) {
	var capped []T
	scale := h.capped(s[:rows*cols])
	if h.softcap > 0 { // s is about to become probabilities
		capped = m.free.get(rows * cols)
		defer m.free.put(capped)
		copy(capped, s)
	}
	if h.window == 0 || first+rows <= h.window {
		m.ops.CausalSoftmaxBackward(rows, cols, first, s, dp, cols, scale, lse)
	} else {
		for r := range rows {
			row, grad, past := s[r*cols:], dp[r*cols:], max(0, first+r-h.window+1)
			clear(row[:past])
			clear(grad[:past])
			m.ops.CausalSoftmaxBackward(1, cols-past, first+r-past, row[past:], grad[past:], cols, scale, lse[r:])
		}
	}
	uncap(dp, capped, h.rope.scale, h.softcap)
}

// capped turns raw scores into cap*tanh(scale*s/cap), if they are capped, and says what is left to scale them by.
func (h *headGroup[T]) capped(s []T) T {
	if h.softcap == 0 {
		return h.rope.scale
	}
	softcap(s, h.rope.scale, h.softcap)
	return 1
}

// scratch hands score buffers to whatever runs concurrently: as many exist as ran at once. Contents are never read before written.
type scratch[T kernel.Float] struct {
	mu   sync.Mutex
	free [][]T
}

func (s *scratch[T]) get(n int) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.free) - 1; last >= 0 {
		b := s.free[last]
		s.free = s.free[:last]
		if cap(b) >= n {
			return b[:n]
		}
	}
	return make([]T, n+n/4)[:n]
}

func (s *scratch[T]) put(b []T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, b)
}
