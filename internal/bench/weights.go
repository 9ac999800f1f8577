package bench

import (
	"fmt"
	"hash/fnv"
	"io/fs"

	"lorad/model"
	"lorad/model/safetensors"
)

// random is a model's weights that no file holds: uniform with the standard deviation of fresh weights, norms 1, a function of the name. It is
// llama.Stored, so that loading takes the memory that it takes from a file.
type random struct{ config model.Config }

// halfWidth of a uniform distribution with standard deviation 0.02.
const halfWidth = 0.02 * 1.7320508

// Tensor draws a whole tensor.
func (r random) Tensor(name string) ([]float32, []int, error) {
	t, n, err := r.find(name)
	if err != nil {
		return nil, nil, err
	}
	data := make([]float32, n)
	draw(t, 0, data)
	return data, t.Shape, nil
}

// Read draws a part of a tensor.
func (r random) Read(name string, first int, dst []float32) error {
	t, n, err := r.find(name)
	if err != nil || first+len(dst) > n {
		return fmt.Errorf("random weights: %s: %d values from %d of %d: %w", name, len(dst), first, n, fs.ErrInvalid)
	}
	draw(t, first, dst)
	return nil
}

// DType is that of f32 for all there is.
func (r random) DType(name string) safetensors.DType {
	if _, _, err := r.find(name); err != nil {
		return ""
	}
	return safetensors.F32
}

// Raw is for weights of 16 bits, which there are none of.
func (random) Raw(name string) ([]byte, safetensors.DType, []int, error) {
	return nil, "", nil, fmt.Errorf("random weights: %s: not stored: %w", name, fs.ErrNotExist)
}

// Packed is for weights of 4 bits, which there are none of.
func (random) Packed(string) (model.Packed, error) { return model.Packed{}, fs.ErrNotExist }

func (r random) find(name string) (t model.TensorSpec, n int, err error) {
	for _, t := range r.config.Tensors() {
		if t.Name == name {
			n = 1
			for _, d := range t.Shape {
				n *= d
			}
			return t, n, nil
		}
	}
	return t, 0, fmt.Errorf("random weights: %s: %w", name, fs.ErrNotExist)
}

// draw writes values first.. of a tensor. A model of a billion weights is drawn at each start, so the generator (splitmix64, which can begin
// anywhere) is about as fast as memory.
func draw(t model.TensorSpec, first int, dst []float32) {
	if len(t.Shape) == 1 {
		for i := range dst {
			dst[i] = 1
		}
		return
	}
	const step = 0x9e3779b97f4a7c15
	h := fnv.New64a()
	h.Write([]byte(t.Name))
	s := h.Sum64() + uint64(first)*step
	for i := range dst {
		s += step
		z := (s ^ s>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		dst[i] = (float32((z^z>>31)>>40)/(1<<23) - 1) * halfWidth
	}
}
