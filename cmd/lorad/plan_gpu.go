package main

import (
	"errors"
	"fmt"
	"io"

	"lorad/engine"
	"lorad/engine/cuda"
	"lorad/engine/cuda/driver"
	"lorad/job"
	"lorad/model"
	"lorad/node/recipe"
)

// gpuMemory is the plan for a GPU.
type gpuMemory struct {
	Free  int64     `json:"free_bytes"`
	Fits  bool      `json:"fits"`
	Why   string    `json:"why,omitempty"` // it does not fit, or is not computed there
	Bytes cuda.Plan `json:"memory"`
}

// gpu plans for the memory that was given, or this machine's GPU; nil if there is none.
func (p planCmd) gpu(j job.Job, r *recipe.Recipe, cfg model.Config) (*gpuMemory, error) {
	g := &gpuMemory{Free: int64(p.VRAM * 1e9)}
	if g.Free == 0 {
		found, err := driver.List(driver.Config{})
		if err != nil || len(found) == 0 || j.Device == job.DeviceCPU {
			return nil, nil
		}
		g.Free = found[0].Memory
	}
	var err error
	if r != nil {
		g.Bytes, err = r.GPUMemory(g.Free)
	} else {
		g.Bytes, err = recipe.ForeseeGPU(j, cfg, g.Free)
	}
	switch {
	case err == nil:
		g.Fits = true
	case errors.Is(err, engine.ErrOutOfMemory), errors.Is(err, cuda.ErrUnsupported):
		g.Why = err.Error()
	default:
		return nil, err
	}
	return g, nil
}

func (g *gpuMemory) print(w io.Writer) {
	m := g.Bytes
	fmt.Fprintf(w, "\nGPU with %.1f GB free: ", float64(g.Free)/1e9)
	if !g.Fits {
		fmt.Fprintln(w, g.Why)
		return
	}
	gates, all := m.Recomputed()
	fmt.Fprintf(w, "peak %.2f GB: weights %.2f, adapters %.2f, activations %.2f, the rest %.2f\n", float64(m.Peak)/1e9, float64(m.Weights)/1e9, float64(m.Adapters)/1e9,
		float64(m.Activations)/1e9, float64(m.Peak-m.Weights-m.Adapters-m.Activations)/1e9)
	if m.Recompute > 0 {
		fmt.Fprintf(w, "of %d layers, %d compute gate and up again in the backward pass, and %d everything but their input: the same bits\n", m.Layers, gates, all)
	}
}
