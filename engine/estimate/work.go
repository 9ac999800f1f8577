package estimate

// Work is how many operations of a step are useful, a multiply-add counting as two: products that the result depends on, each once.
// Not counted: what goes through memory once (norms, softmax, the optimiser), what causal attention masks, and whatever is computed again to
// save memory.
type Work struct {
	Forward, Head, Backward float64
}

// Total is the work of all stages.
func (w Work) Total() float64 { return w.Forward + w.Head + w.Backward }

// Work of one micro-batch. Rows without labels need no head.
func (m Model) Work(b Batch) Work {
	all, rows := m.linears(), float64(b.Tokens())
	lowest := m.lowest(all)
	layers, head := all[:len(all)-1], all[len(all)-1]
	var w Work
	for _, l := range layers {
		w.Forward += l.forward(rows)
		w.Backward += l.backward(rows, lowest, m.Adapter.Full)
	}
	w.Head = head.forward(float64(b.Labelled)) + head.backward(float64(b.Labelled), lowest, m.Adapter.Full)
	pairs := b.pairs()
	product := 2 * pairs * float64(m.Config.NumHeads*m.Config.HeadDim)
	for layer := range m.Config.NumLayers {
		w.Forward += 2 * product // scores and values
		if lowest <= stages*layer {
			w.Backward += 4 * product // dV, dP, dQ, dK
		}
	}
	return w
}

// pairs counts (query, key) pairs that causal attention looks at.
func (b Batch) pairs() float64 {
	n := 0.0
	for _, l := range b.Lengths {
		n += float64(l) * float64(l+1) / 2
	}
	return n
}

func (l linear) forward(rows float64) float64 {
	return 2 * rows * float64(l.out*l.in+l.rank*(l.in+l.out))
}

// backward: the gradient by the input if anything below is trained, that of the weight if it is trained itself, and the adapter's: dB, dU, dA, and
// its share of the input's.
func (l linear) backward(rows float64, lowest int, full bool) float64 {
	var w float64
	if full {
		w += float64(l.out * l.in)
	}
	if lowest < l.stage {
		w += float64(l.out*l.in + l.rank*l.in)
	}
	w += float64(l.rank * (2*l.out + l.in))
	return 2 * rows * w
}
