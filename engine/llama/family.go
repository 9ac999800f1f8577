package llama

// What some families have and Llama has not: fused projections (Phi-3), norms of the heads of q and k (Qwen3, Gemma 3), norms of what attention and
// the MLP add to the residual stream, and GELU (Gemma 3). Each is a question to the configuration, never to the family's name.

// familyWidth is the number of activations that a layer keeps per row beyond Llama's.
func (m *Model[T]) familyWidth() int {
	c, n := m.cfg, 0
	if c.QKNorm {
		n += (c.NumHeads + c.NumKVHeads) * (c.HeadDim + 1)
	}
	if c.PostNorms {
		n += 2 * (c.HiddenSize + 1)
	}
	return n
}

func (m *Model[T]) reserveFamilyAct(a *act[T], rows int) {
	c := m.cfg
	if c.QKNorm {
		m.room(rows*c.NumHeads*c.HeadDim, &a.q0)
		m.room(rows*c.NumKVHeads*c.HeadDim, &a.k0)
		m.room(rows*c.NumHeads, &a.qInv)
		m.room(rows*c.NumKVHeads, &a.kInv)
	}
	if c.PostNorms {
		m.room(rows*c.HiddenSize, &a.oRaw, &a.mlpRaw)
		m.room(rows, &a.oInv, &a.mlpInv)
	}
}

func (m *Model[T]) reserveFamily(rows int) {
	c := m.cfg
	if c.Fused {
		m.room(rows*max((c.NumHeads+2*c.NumKVHeads)*c.HeadDim, 2*c.IntermediateSize), &m.buf.fused)
	}
	if c.PostNorms {
		m.room(rows*c.HiddenSize, &m.buf.post)
	}
}

// projectQKV writes q, k and v.
func (m *Model[T]) projectQKV(l *layer[T], n int, a *act[T]) {
	c, q, k0 := m.cfg, a.q, a.k
	if c.QKNorm {
		q, k0 = a.q0, a.k0
	}
	if c.Fused {
		m.forward(&l.qkv, n, 0, a.n1, m.buf.fused, a.uq, false)
		part(n, m.buf.fused, q, c.NumHeads*c.HeadDim, k0, c.NumKVHeads*c.HeadDim, a.v, c.NumKVHeads*c.HeadDim)
	} else {
		m.forward(&l.q, n, 0, a.n1, q, a.uq, false)
		m.forward(&l.k, n, 0, a.n1, k0, a.uk, false)
		m.forward(&l.v, n, 0, a.n1, a.v, a.uv, false)
	}
	if c.QKNorm { // a head of a row is a row of the norm
		m.normalise(n*c.NumHeads, a.q, a.qInv, q, &l.qNorm)
		m.normalise(n*c.NumKVHeads, a.k, a.kInv, k0, &l.kNorm)
	}
}

// qkvBackward takes the gradients of q, k and v to the layer's weights and, unless dn is nil, to its normalised input.
func (m *Model[T]) qkvBackward(l *layer[T], n int, a *act[T], dn []T) {
	c, b := m.cfg, &m.buf
	dq, dk := b.dq, b.dk
	if c.QKNorm {
		dq, dk = b.dq0, b.dk0
		clear(dq[:n*c.NumHeads*c.HeadDim])
		clear(dk[:n*c.NumKVHeads*c.HeadDim])
		m.normaliseBackward(n*c.NumHeads, dq, b.dq, a.q0, a.qInv, &l.qNorm)
		m.normaliseBackward(n*c.NumKVHeads, dk, b.dk, a.k0, a.kInv, &l.kNorm)
	}
	if c.Fused {
		join(n, b.fused, dq, c.NumHeads*c.HeadDim, dk, c.NumKVHeads*c.HeadDim, b.dv, c.NumKVHeads*c.HeadDim)
		m.backward(&l.qkv, n, 0, a.n1, a.uq, b.fused, dn, false, false)
		return
	}
	m.backward(&l.q, n, 0, a.n1, a.uq, dq, dn, false, false)
	m.backward(&l.k, n, 0, a.n1, a.uk, dk, dn, true, false)
	m.backward(&l.v, n, 0, a.n1, a.uv, b.dv, dn, true, false)
}

func (m *Model[T]) projectGateUp(l *layer[T], n int, a *act[T]) {
	if m.cfg.Fused {
		f := m.cfg.IntermediateSize
		m.forward(&l.gateUp, n, 0, a.n2, m.buf.fused, a.ugate, false)
		part(n, m.buf.fused, a.gate, f, a.up, f, nil, 0)
		return
	}
	m.forward(&l.gate, n, 0, a.n2, a.gate, a.ugate, false)
	m.forward(&l.up, n, 0, a.n2, a.up, a.uup, false)
}

func (m *Model[T]) gateUpBackward(l *layer[T], n int, a *act[T], dgate, dup, dn []T) {
	if m.cfg.Fused {
		f := m.cfg.IntermediateSize
		join(n, m.buf.fused, dgate, f, dup, f, nil, 0)
		m.backward(&l.gateUp, n, 0, a.n2, a.ugate, m.buf.fused, dn, false, false)
		return
	}
	m.backward(&l.gate, n, 0, a.n2, a.ugate, dgate, dn, false, false)
	m.backward(&l.up, n, 0, a.n2, a.uup, dup, dn, true, false)
}

// activate writes h = act(gate) * up.
func (m *Model[T]) activate(n int, a *act[T]) {
	f, act := m.cfg.IntermediateSize, m.ops.SwiGLU
	if m.cfg.GELU {
		act = m.ops.GeGLU
	}
	m.eachRows(n, func(lo, hi int) {
		act(a.h[lo*f:hi*f], a.gate[lo*f:hi*f], a.up[lo*f:hi*f])
	})
}

// activateBackward writes the gradient of gate to dgate and turns that of h into that of up, in place.
func (m *Model[T]) activateBackward(n int, a *act[T], dgate, dh []T) {
	f, act := m.cfg.IntermediateSize, m.ops.SwiGLUBackward
	if m.cfg.GELU {
		act = m.ops.GeGLUBackward
	}
	m.eachRows(n, func(lo, hi int) {
		lo, hi = lo*f, hi*f
		act(dgate[lo:hi], dh[lo:hi], dh[lo:hi], a.gate[lo:hi], a.up[lo:hi])
	})
}

// addTo writes out = res + l(x), with a norm over l(x) if w has one; raw and inv are kept for its backward pass.
func (m *Model[T]) addTo(out, res []T, l *linear[T], n int, x, u, raw, inv []T, w *weight[T]) {
	h := m.cfg.HiddenSize
	m.eachRows(n, func(lo, hi int) { copy(out[lo*h:hi*h], res[lo*h:hi*h]) })
	if w.data == nil {
		m.forward(l, n, 0, x, out, u, true)
		return
	}
	m.forward(l, n, 0, x, raw, u, false)
	m.normalise(n, m.buf.post, inv, raw, w)
	m.eachRows(n, func(lo, hi int) { m.ops.Axpy(1, m.buf.post[lo*h:hi*h], out[lo*h:hi*h]) })
}

// beforeNorm is the gradient of what addTo's layer gave: dres itself, unless there is a norm behind it.
func (m *Model[T]) beforeNorm(n int, raw, inv []T, w *weight[T]) []T {
	if w.data == nil {
		return m.buf.dres
	}
	clear(m.buf.post[:n*m.cfg.HiddenSize])
	m.normaliseBackward(n, m.buf.post, m.buf.dres, raw, inv, w)
	return m.buf.post
}

// part cuts each row of x into up to three pieces of the widths given.
func part[T any](rows int, x, a []T, wa int, b []T, wb int, c []T, wc int) {
	for i := range rows {
		row := x[i*(wa+wb+wc):]
		copy(a[i*wa:(i+1)*wa], row)
		copy(b[i*wb:(i+1)*wb], row[wa:])
		copy(c[i*wc:(i+1)*wc], row[wa+wb:])
	}
}

// join is the inverse of part.
func join[T any](rows int, x, a []T, wa int, b []T, wb int, c []T, wc int) {
	for i := range rows {
		row := x[i*(wa+wb+wc):]
		copy(row, a[i*wa:(i+1)*wa])
		copy(row[wa:], b[i*wb:(i+1)*wb])
		copy(row[wa+wb:], c[i*wc:(i+1)*wc])
	}
}
