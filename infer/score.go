package infer

import (
	"math"

	"lorad/data"
	"lorad/engine"
)

// Perplexities returns exp of the mean token loss of each example.
func (m *Model) Perplexities(examples []data.Example) ([]float64, error) {
	out := make([]float64, len(examples))
	for i, ex := range examples {
		b := engine.Batch{Tokens: ex.Tokens, Labels: ex.Labels, Starts: []int32{0, int32(len(ex.Tokens))}}
		loss, err := m.engine.Loss(b)
		if err != nil {
			return nil, err
		}
		out[i] = math.Exp(loss / float64(b.Labelled()))
	}
	return out, nil
}
