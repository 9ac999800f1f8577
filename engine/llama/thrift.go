package llama

import "lorad/engine"

var _ engine.Thrifty = (*Model[float32])(nil)

// Growth counts the buffers of a step that are not there yet with the code that takes them. Buffers that have to grow are
// counted whole: the old ones go only when the new ones are there.
func (m *Model[T]) Growth(b engine.Batch) int64 {
	rows, labelled := len(b.Tokens), b.Labelled()
	if rows <= m.buf.trainRows && labelled <= m.buf.headRows {
		return 0
	}
	var n int64
	held := m.buf
	m.buf, m.count = buffers[T]{drops: m.dropout > 0}, &n
	m.reserve(rows, true)
	m.reserveHead(labelled)
	m.buf, m.count = held, nil
	return n
}

// Leaner halves the number of layers that keep all their activations; the others keep their input and are computed again
// in the backward pass. A micro-batch is not cut in two: a sum over its rows would be made in another order.
func (m *Model[T]) Leaner() bool {
	layers := len(m.layers) - m.lowest
	rows := max(1, m.buf.trainRows)
	layer, input := m.layerBytes(rows)
	whole := layers - recomputed(layers, layer, input, m.budget)
	if whole <= 0 {
		return false
	}
	whole /= 2
	m.budget = int64(layers-whole)*input + int64(whole)*layer
	m.buf = buffers[T]{}
	return true
}
