package cuda

import (
	"slices"

	"lorad/engine"
	"lorad/engine/cuda/device"
)

// Logits returns the [len(tokens), vocab] logits of one sequence, row-major, without dropout.
func (t *Trainer) Logits(tokens []int32) ([]float32, error) {
	rows := make([]int32, len(tokens))
	for i := range rows {
		rows[i] = int32(i)
	}
	out := make([]float32, len(tokens)*t.net.VocabSize)
	return out, t.project(tokens, rows, out)
}

// project writes the logits of some rows of a sequence.
func (t *Trainer) project(tokens, rows []int32, out []float32) error {
	labels := slices.Repeat([]int32{engine.Ignore}, len(tokens))
	for _, r := range rows {
		labels[r] = 0 // any label has the row listed
	}
	p, err := t.net.newBatch(engine.Batch{Tokens: tokens, Labels: labels, Starts: []int32{0, int32(len(tokens))}})
	if err != nil {
		return err
	}
	if err := t.reserve(p.size); err != nil {
		return err
	}
	if err := t.bring(p, 1, engine.Key{}); err != nil {
		return err
	}
	w := t.newPass(p.shape, false)
	w.forward()
	chunk, v := t.size.chunk(t.net), t.net.VocabSize
	for lo := 0; lo < len(rows); lo += chunk {
		n := min(chunk, len(rows)-lo)
		w.logits(w.kept(t.net.NumLayers-1), w.in.index+device.Ptr(4*lo), lo, min(chunk, p.labelled-lo))
		w.download(raw(out[lo*v:(lo+n)*v]), w.b.logits)
	}
	return w.take()
}
