package llama

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"lorad/engine"
	"lorad/engine/kernel"
	"lorad/engine/lora"
)

// weight is one tensor. Trainable ones live in the flat vector at off; frozen ones have off = -1.
type weight[T kernel.Float] struct {
	data []T
	off  int
	plus []T // 1 + data, of a trainable norm that multiplies by that
}

// factor is what a norm multiplies by.
func (w *weight[T]) factor() []T {
	if w.plus != nil {
		return w.plus
	}
	return w.data
}

func (w *weight[T]) trainable() bool { return w.data != nil && w.off >= 0 }

// grad is the place of the tensor's gradient, nil if it is frozen.
func (w *weight[T]) grad(flat []T) []T {
	if !w.trainable() {
		return nil
	}
	return flat[w.off : w.off+len(w.data)]
}

// initStd is the standard deviation of fresh weights, Hugging Face's initializer_range.
const initStd = 0.02

// tensor declares a weight of the base model: trained, or read as it is.
func (b *builder[T]) tensor(w *weight[T], name string, shape ...int) {
	as, ok := b.trained(name)
	if !ok {
		w.off = -1
		b.values = append(b.values, func() { w.data = b.read(name, shape) })
		return
	}
	b.train(w, as, func(p []T) {
		if data := b.read(name, shape); data != nil {
			copy(p, data)
		} else if b.ad.Full {
			b.fresh(p, name, shape)
		}
	}, shape...)
}

func (b *builder[T]) fresh(p []T, name string, shape []int) {
	switch {
	case strings.HasSuffix(name, ".bias"):
	case len(shape) == 1:
		for i := range p {
			if !b.m.cfg.NormPlusOne {
				p[i] = 1
			}
		}
	default:
		lora.InitNormal(p, initStd, b.ad.Seed, name)
	}
}

// train gives w the next place in the flat vector; init fills it unless Adapter.Init has values.
func (b *builder[T]) train(w *weight[T], name string, init func([]T), shape ...int) {
	t := engine.Tensor{Name: name, Shape: slices.Clone(shape), Offset: b.size}
	w.off, b.size = b.size, b.size+t.Len()
	w.data = []T{} // trainable, although there is nothing yet
	b.m.layout = append(b.m.layout, t)
	b.values = append(b.values, func() {
		w.data = b.m.params[t.Offset : t.Offset+t.Len() : t.Offset+t.Len()]
		given, ok := b.ad.Init[name]
		if !ok {
			init(w.data)
			return
		}
		b.used++
		if len(given) != len(w.data) {
			b.fail(fmt.Errorf("llama: adapter: initial values of %s: %d elements, want shape %v; use the rank they were trained with", name, len(given), shape))
			return
		}
		copy(w.data, convert[T](given))
	})
}

// read returns a tensor of the base model, or nil if there is none, which build judges.
func (b *builder[T]) read(name string, shape []int) []T {
	if b.from == nil {
		b.missing = append(b.missing, name)
		return nil
	}
	data, got, err := b.from.Tensor(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b.missing = append(b.missing, name)
		return nil
	case err != nil:
		b.fail(fmt.Errorf("llama: weights: %s: %w", name, err))
		return nil
	case !slices.Equal(got, shape) || len(data) != (engine.Tensor{Shape: shape}).Len():
		b.fail(fmt.Errorf("llama: weights: %s: shape %v, but config.json says %v; the folder mixes two models", name, got, shape))
		return nil
	}
	b.found++
	return convert[T](data)
}

// convert widens to T; float32 stays where it is.
func convert[T kernel.Float](x []float32) []T {
	if same, ok := any(x).([]T); ok {
		return same
	}
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}
