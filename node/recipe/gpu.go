package recipe

import (
	"errors"
	"fmt"

	"lorad/engine/cuda"
	"lorad/engine/cuda/device"
	"lorad/engine/llama"
	"lorad/job"
	"lorad/model"
)

// OnGPU makes the engine on a device, with the initial parameters that Planned's has, and takes the memory of its steps. The error says
// why this job cannot be trained there; the processor may still do it.
func (r *Recipe) OnGPU(open func() (device.Device, error)) (*cuda.Trainer, error) {
	ad, err := r.trained()
	if err != nil {
		return nil, err
	}
	if err := cuda.Supports(r.Base.Config(), ad); err != nil {
		return nil, err
	}
	if open == nil {
		return nil, errors.New("this node has no GPU")
	}
	dev, err := open()
	if err != nil {
		return nil, err
	}
	t, err := cuda.New(r.Base.Config(), r.Base, ad, dev)
	if err != nil {
		dev.Close()
		return nil, fmt.Errorf("base_model: %w", err)
	}
	if err := t.Prepare(r.Largest()); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// GPUMemory plans the memory of training on a GPU with so many bytes free (0: not known).
func (r *Recipe) GPUMemory(free int64) (cuda.Plan, error) {
	return r.gpuPlan(r.Base.Config(), r.Largest(), free)
}

// ForeseeGPU is GPUMemory as Foresee is Memory.
func ForeseeGPU(j job.Job, cfg model.Config, free int64) (cuda.Plan, error) {
	r, largest := foreseen(j)
	return r.gpuPlan(cfg, largest, free)
}

func (r *Recipe) gpuPlan(cfg model.Config, largest llama.Batch, free int64) (cuda.Plan, error) {
	ad, err := r.trained()
	if err != nil {
		return cuda.Plan{}, err
	}
	return cuda.NewPlan(cfg, ad, largest, free)
}
