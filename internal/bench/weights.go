package bench

import (
	"fmt"
	"hash/fnv"
	"io/fs"

	"lorad/engine/kernel"
	"lorad/model"
	"lorad/model/safetensors"
)

// Random is the weights of a model that no file holds, in bf16: uniform with the standard deviation of fresh weights, norms 1. Each value is a
// function of the tensor's name and its own number (SplitMix64), so that any piece can be drawn, at about the speed of memory.
type Random struct{ Config model.Config }

// halfWidth of a uniform distribution with standard deviation 0.02.
const halfWidth = 0.02 * 1.7320508

func (r Random) find(name string) (model.TensorSpec, int, error) {
	for _, t := range r.Config.Tensors() {
		if t.Name == name {
			n := 1
			for _, d := range t.Shape {
				n *= d
			}
			return t, n, nil
		}
	}
	return model.TensorSpec{}, 0, fmt.Errorf("random weights: %s: %w", name, fs.ErrNotExist)
}

// Tensor draws a whole tensor.
func (r Random) Tensor(name string) ([]float32, []int, error) {
	t, n, err := r.find(name)
	if err != nil {
		return nil, nil, err
	}
	data := make([]float32, n)
	return data, t.Shape, r.Read(name, 0, data)
}

// Read draws a piece.
func (r Random) Read(name string, first int, dst []float32) error {
	t, _, err := r.find(name)
	if err != nil {
		return err
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	seed := h.Sum64()
	for i := range dst {
		dst[i] = 1
		if len(t.Shape) > 1 {
			dst[i] = kernel.WidenBF16(uint16(kernel.RoundBF16((float32(mix(seed+uint64(first+i)*golden)>>40)/(1<<23) - 1) * halfWidth)))
		}
	}
	return nil
}

const golden = 0x9e3779b97f4a7c15

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Raw draws a whole tensor as bf16.
func (r Random) Raw(name string) ([]byte, safetensors.DType, []int, error) {
	t, n, err := r.find(name)
	if err != nil {
		return nil, "", nil, err
	}
	out, piece := make([]byte, 2*n), make([]float32, 4096)
	for first := 0; first < n; first += len(piece) {
		x := piece[:min(len(piece), n-first)]
		if err := r.Read(name, first, x); err != nil {
			return nil, "", nil, err
		}
		for i, v := range x {
			h := kernel.RoundBF16(v)
			out[2*(first+i)], out[2*(first+i)+1] = byte(h), byte(h>>8)
		}
	}
	return out, safetensors.BF16, t.Shape, nil
}

// DType is bf16.
func (r Random) DType(string) safetensors.DType { return safetensors.BF16 }

// Packed says that nothing is in four bits.
func (r Random) Packed(name string) (model.Packed, error) {
	return model.Packed{}, fmt.Errorf("random weights: %s in 4 bits: %w", name, fs.ErrNotExist)
}
