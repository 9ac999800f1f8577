package infer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/cuda"
	"lorad/engine/cuda/device"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/model"
)

// Values of Options.Device, besides Auto: a GPU if there is one and the model fits, else the processor.
const (
	CPU  = "cpu"
	CUDA = "cuda" // or nothing
)

// GPU is one that a model may be put on.
type GPU struct {
	Name string // "GPU 0 (NVIDIA H200)"
	Free int64  // bytes; 0 = not known
	Open func() (device.Device, error)
}

// Place is what a model computes on, and in.
type Place struct {
	Device string           // CPU or CUDA
	Name   string           // "the processor", "GPU 0 (NVIDIA H200)"
	DType  kernel.Precision // of products
	Why    error            // why not on a GPU; nil if it is on one, or none was looked for
}

func (p Place) String() string { return fmt.Sprintf("%s, in %s", p.Name, p.DType) }

// Place is what the model computes on.
func (m *Model) Place() Place { return m.on }

// Close gives a GPU back.
func (m *Model) Close() error {
	if t, ok := m.engine.(*cuda.Trainer); ok {
		return t.Close()
	}
	return nil
}

// place gives the model its engine.
func (m *Model) place(w *model.Folder, ad llama.Adapter, how Options) (err error) {
	if !slices.Contains([]string{"", Auto, CPU, CUDA}, how.Device) {
		return fmt.Errorf("device: %q is not supported; give %s, %s or %s", how.Device, Auto, CPU, CUDA)
	}
	m.on.Why = m.onGPU(w, ad, how)
	if m.engine != nil {
		return nil
	}
	if how.Device == CUDA {
		return fmt.Errorf("device: cuda: %w", cmp.Or(m.on.Why, errNoGPU))
	}
	m.on = Place{CPU, "the processor", ad.Precision, m.on.Why}
	if m.engine, err = llama.New[float32](m.config, w, ad, cpu.New(how.Threads)); err != nil {
		return fmt.Errorf("base model: %w", err)
	}
	return nil
}

var errNoGPU = errors.New("this machine has no GPU")

// onGPU puts the model on the GPU with the most room that takes it; the error says why it is on none.
func (m *Model) onGPU(w *model.Folder, ad llama.Adapter, how Options) error {
	if how.Device == CPU || how.GPUs == nil {
		return nil
	}
	if how.DType == "" || how.DType == Auto {
		ad.Precision = kernel.BF16
	}
	list, err := how.GPUs()
	if err != nil {
		return err
	}
	if err := cuda.Supports(m.config, ad); err != nil {
		return err
	}
	err = errNoGPU
	slices.SortStableFunc(list, func(a, b GPU) int { return cmp.Compare(b.Free, a.Free) })
	for i, g := range list {
		t, refused := openGPU(g, m.config, w, ad)
		if refused == nil {
			m.engine, m.on = t, Place{Device: CUDA, Name: g.Name, DType: ad.Precision}
			return nil
		}
		if i == 0 {
			err = nil
		}
		err = errors.Join(err, fmt.Errorf("%s: %w", g.Name, refused))
	}
	return err
}

func openGPU(g GPU, cfg model.Config, w *model.Folder, ad llama.Adapter) (engine.Trainer, error) {
	dev, err := g.Open()
	if err != nil {
		return nil, err
	}
	t, err := cuda.NewFrozen(cfg, w, ad, dev)
	if err != nil {
		dev.Close()
		return nil, err
	}
	return t, nil
}
