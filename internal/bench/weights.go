package bench

import (
	"fmt"
	"hash/fnv"
	"io/fs"

	"lorad/model"
)

// random is a model's weights that no file holds: uniform with the standard deviation of fresh weights, norms 1, a function of the name.
type random struct{ config model.Config }

// halfWidth of a uniform distribution with standard deviation 0.02.
const halfWidth = 0.02 * 1.7320508

// Tensor draws a tensor. A model of a billion weights is drawn at each start, so the generator (xorshift64*) is about as fast as memory.
func (r random) Tensor(name string) ([]float32, []int, error) {
	for _, t := range r.config.Tensors() {
		if t.Name == name {
			return draw(t), t.Shape, nil
		}
	}
	return nil, nil, fmt.Errorf("random weights: %s: %w", name, fs.ErrNotExist)
}

func draw(t model.TensorSpec) []float32 {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	data := make([]float32, n)
	h := fnv.New64a()
	h.Write([]byte(t.Name))
	s := h.Sum64() | 1
	for i := range data {
		s ^= s >> 12
		s ^= s << 25
		s ^= s >> 27
		data[i] = (float32(s*0x2545f4914f6cdd1d>>40)/(1<<23) - 1) * halfWidth
		if len(t.Shape) == 1 {
			data[i] = 1
		}
	}
	return data
}
