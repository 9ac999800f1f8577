package llama

import (
	"cmp"
	"fmt"
	"math"

	"lorad/engine"
	"lorad/engine/lora"
)

// Gradient overwrites grad with d(scale * sum of token losses)/d(Params) and returns the unscaled sum, in nats.
func (m *Model[T]) Gradient(b engine.Batch, scale float32, key engine.Key, grad []T) (float64, error) {
	if len(grad) != len(m.params) {
		return 0, fmt.Errorf("llama: gradient: %d elements, but the model trains %d", len(grad), len(m.params))
	}
	p, err := m.newPass(b)
	if err != nil {
		return 0, err
	}
	m.buf.grad, m.buf.key, m.buf.drops = grad, key, m.dropout > 0
	defer func() { m.buf.grad, m.buf.drops = nil, false }()
	if m.selectLabelled(p); len(m.buf.labelled) == 0 {
		clear(grad)
		return 0, nil
	}
	m.reserve(p.rows, true)
	m.profile.begin(Forward, Gemm)
	m.run(p, nil, true)
	m.profile.begin(Head, Gemm)
	loss := m.headLoss(p, T(scale), true)
	m.profile.begin(Backward, Gemm)
	defer m.profile.end()
	for i := len(m.layers) - 1; i >= m.lowest; i-- {
		m.backwardLayer(i, p)
	}
	m.backwardEmbedding(p)
	return loss, nil
}

// Loss is the sum of the token losses without dropout, in nats.
func (m *Model[T]) Loss(b engine.Batch) (float64, error) {
	p, err := m.newPass(b)
	if err != nil {
		return 0, err
	}
	if m.selectLabelled(p); len(m.buf.labelled) == 0 {
		return 0, nil
	}
	m.reserve(p.rows, false)
	m.run(p, nil, false)
	return m.headLoss(p, 1, false), nil
}

// run is the forward pass up to the last layer's output.
// In generation, live are the streams whose sequences these are.
func (m *Model[T]) run(p *pass, live []*stream[T], train bool) {
	m.refresh()
	h, x := m.cfg.HiddenSize, m.act(0, train).x
	m.eachRows(p.rows, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			m.embedding(p.tokens[i], x[i*h:(i+1)*h])
		}
		if m.cfg.EmbedScale != 0 {
			m.ops.Scale(T(m.cfg.EmbedScale), x[lo*h:hi*h])
		}
	})
	if train && m.noise > 0 {
		m.addNoise(p, x)
	}
	for i := range m.layers {
		out := m.buf.last
		if i+1 < len(m.layers) {
			out = m.act(i+1, train).x
		}
		m.forwardLayer(i, p, live, m.act(i, train), out)
	}
}

// addNoise is NEFTune: a sequence of L tokens gets U(-1, 1) * alpha/sqrt(L*hidden) on its embeddings.
func (m *Model[T]) addNoise(p *pass, x []T) {
	h := m.cfg.HiddenSize
	for i := range p.sequences() {
		lo, hi := p.sequence(i)
		lora.AddNoise(x[lo*h:hi*h], m.noise/math.Sqrt(float64((hi-lo)*h)), m.buf.key, lo*((h+3)&^3))
	}
}

// embedding copies a token's row.
func (m *Model[T]) embedding(token int32, x []T) {
	if m.table != nil {
		m.table.Row(int(token), x)
		return
	}
	copy(x, m.embed.data[int(token)*len(x):])
}

// forwardLayer: x2 = x + o(attention(norm1(x))), out = x2 + down(silu(gate(n2)) * up(n2)) with n2 = norm2(x2).
func (m *Model[T]) forwardLayer(i int, p *pass, live []*stream[T], a *act[T], out []T) {
	l, n := &m.layers[i], p.rows
	m.normalise(n, a.n1, a.inv1, a.x, &l.norm1)
	m.projectQKV(l, n, a)
	if live == nil {
		m.attend(l, p, a)
	} else {
		m.attendCached(i, p, live, a)
	}
	m.addTo(a.x2, a.x, &l.o, n, a.o, a.uo, a.oRaw, a.oInv, &l.postAttention)
	m.normalise(n, a.n2, a.inv2, a.x2, &l.norm2)
	m.projectGateUp(l, n, a)
	m.activate(n, a)
	m.addTo(out, a.x2, &l.down, n, a.h, a.udown, a.mlpRaw, a.mlpInv, &l.postMLP)
}

// backwardLayer takes the gradient of the layer's output in dres and leaves that of its input there, if anything below needs it.
func (m *Model[T]) backwardLayer(i int, p *pass) {
	l, a := &m.layers[i], m.act(i, true)
	below := i > m.lowest || m.embed.trainable()
	attn := below || l.attnTrainable()
	switch {
	case i-m.lowest < m.buf.again:
		m.forwardLayer(i, p, nil, a, m.buf.last) // the head has read last already
	case m.buf.lean:
		m.normalise(p.rows, a.n1, a.inv1, a.x, &l.norm1)
		m.normalise(p.rows, a.n2, a.inv2, a.x2, &l.norm2)
		m.activate(p.rows, a)
	}
	m.backwardMLP(l, a, p.rows, attn)
	if attn {
		m.backwardAttention(l, a, p, below)
	}
}

func (m *Model[T]) backwardMLP(l *layer[T], a *act[T], n int, below bool) {
	b := &m.buf
	norm := below || l.norm2.trainable()
	var dh, dn []T
	if norm {
		dn = b.dnorm
	}
	if norm || l.gateTrainable() {
		dh = b.dh
	}
	m.backward(&l.down, n, 0, a.h, a.udown, m.beforeNorm(n, a.mlpRaw, a.mlpInv, &l.postMLP), dh, false, false)
	if dh == nil {
		return
	}
	m.activateBackward(n, a, b.dgate, dh)
	m.gateUpBackward(l, n, a, b.dgate, dh, dn)
	if norm {
		m.normaliseBackward(n, b.dres, dn, a.x2, a.inv2, &l.norm2)
	}
}

func (m *Model[T]) backwardAttention(l *layer[T], a *act[T], p *pass, below bool) {
	b, n := &m.buf, p.rows
	norm := below || l.norm1.trainable()
	var dq, dn []T
	if norm {
		dn = b.dnorm
	}
	if norm || l.qkvTrainable() {
		dq = b.dq
	}
	m.backward(&l.o, n, 0, a.o, a.uo, m.beforeNorm(n, a.oRaw, a.oInv, &l.postAttention), dq, false, false)
	if dq == nil {
		return
	}
	m.attendBackward(l, p, a, dq, b.dk, b.dv)
	m.qkvBackward(l, n, a, dn)
	if norm {
		m.normaliseBackward(n, b.dres, dn, a.x, a.inv1, &l.norm1)
	}
}

// backwardEmbedding adds the gradient of each row to its token's, except for padding's, which gets none (torch's padding_idx). A tied embedding
// already holds the head's share.
func (m *Model[T]) backwardEmbedding(p *pass) {
	g, h, scale := m.embed.grad(m.buf.grad), m.cfg.HiddenSize, T(cmp.Or(m.cfg.EmbedScale, 1))
	if g == nil {
		return
	}
	if !m.cfg.TieEmbeddings {
		clear(g)
	}
	for i, t := range p.tokens {
		if int(t) == m.cfg.Pad {
			continue
		}
		m.ops.Axpy(scale, m.buf.dres[i*h:(i+1)*h], g[int(t)*h:(int(t)+1)*h])
	}
}

// normalise works on rows as wide as w: the hidden size, or a head.
func (m *Model[T]) normalise(rows int, y, inv, x []T, w *weight[T]) {
	h, eps := len(w.data), T(m.cfg.RMSNormEps)
	m.eachRows(rows, func(lo, hi int) {
		m.ops.RMSNorm(hi-lo, h, y[lo*h:hi*h], inv[lo:hi], x[lo*h:hi*h], w.factor(), eps)
	})
}

// normaliseBackward adds to dx. The gradient of the weight is summed per block of rows, then over blocks in their order.
func (m *Model[T]) normaliseBackward(rows int, dx, dy, x, inv []T, w *weight[T]) {
	h, gw, partial := len(w.data), w.grad(m.buf.grad), m.buf.partial
	m.eachRows(rows, func(lo, hi int) {
		var dw []T
		if gw != nil {
			dw = partial[lo/rowBlock*h : (lo/rowBlock+1)*h]
			clear(dw)
		}
		m.ops.RMSNormBackward(hi-lo, h, dx[lo*h:hi*h], dw, dy[lo*h:hi*h], x[lo*h:hi*h], w.factor(), inv[lo:hi])
	})
	if gw != nil {
		m.columnSum(gw, partial, (rows+rowBlock-1)/rowBlock, false)
	}
}
