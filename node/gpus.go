package node

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/job"
)

// GPUs is what a node needs of its machine's GPUs.
type GPUs interface {
	// List says how they are now; an error says why there are none.
	List() ([]GPU, error)
	Open(index int) (device.Device, error)
}

// GPU is one of them.
type GPU struct {
	Index   int // for Open
	Name    string
	Compute [2]int // compute capability
	Free    int64  // bytes that nobody holds; 0 = not known
}

// LeastCompute is the first compute capability (its major number: Ampere) with products in bf16, for which the kernels are made.
const LeastCompute = 8

// onGPU makes the trainers on this node's GPUs, one on each that has room for the work; none if the processor is to compute. A job that wants GPUs does
// without this node if it has none to give.
func (w *worker) onGPU() (engine.Trainer, error) {
	if w.job.Device == job.DeviceCPU {
		return nil, nil
	}
	all, err := w.openGPUs()
	switch {
	case err == nil:
		if len(all) > 1 {
			w.lanes = newLanes(all)
		}
		return all[0], nil
	case w.job.Device == job.DeviceCUDA:
		return nil, &unfitError{fmt.Errorf("device: cuda: %w", err)}
	}
	w.log.Info("this node trains on its processor", "why", err)
	return nil, nil
}

// openGPUs takes the GPUs with room.
func (w *worker) openGPUs() ([]engine.Trainer, error) {
	if w.node.cfg.GPUs == nil {
		return nil, errNoGPU
	}
	list, err := w.node.cfg.GPUs.List()
	if err != nil {
		return nil, err
	}
	open, refused := takeGPUs(list, w.openGPU)
	if len(open) > 0 && refused != nil {
		w.log.Warn("not every GPU is used", "why", refused)
	}
	if len(open) > 0 {
		return open, nil
	}
	return nil, refused
}

var errNoGPU = errors.New("this node has no GPU")

// takeGPUs tries all, the one with the most room first: it is where validation and everything else happens that one engine does. The error says of each
// why it is not used.
func takeGPUs(list []GPU, take func(GPU) (engine.Trainer, error)) (open []engine.Trainer, err error) {
	slices.SortStableFunc(list, func(a, b GPU) int { return cmp.Compare(b.Free, a.Free) })
	for _, g := range list {
		t, refused := take(g)
		if refused != nil {
			err = errors.Join(err, fmt.Errorf("GPU %d (%s): %w", g.Index, g.Name, refused))
			continue
		}
		open = append(open, t)
	}
	if len(list) == 0 {
		err = errNoGPU
	}
	return open, err
}

// openGPU asks first whether the work fits into what is free: whoever else uses the GPU is not to be run out of memory.
func (w *worker) openGPU(g GPU) (engine.Trainer, error) {
	if g.Compute[0] < LeastCompute {
		return nil, fmt.Errorf("compute capability %d.%d, and %d.0 is the least", g.Compute[0], g.Compute[1], LeastCompute)
	}
	if _, err := w.recipe.GPUMemory(g.Free); err != nil {
		return nil, err
	}
	t, err := w.recipe.OnGPU(func() (device.Device, error) { return w.node.cfg.GPUs.Open(g.Index) })
	if err != nil {
		return nil, err
	}
	p := t.Plan()
	w.log.Info("this node trains on a GPU", "index", g.Index, "device", t.Device().Name, "bytes", p.Peak, "layers", p.Layers, "recomputed", p.Recompute)
	return t, nil
}
