package main

import (
	"errors"
	"fmt"
	"os"

	"lorad/engine/cuda/driver"
	"lorad/gpu"
	"lorad/infer"
	"lorad/node"
)

// useFlags say on what, and how, a model computes that is used and not trained.
type useFlags struct {
	Device  string `enum:"auto,cpu,cuda" default:"auto" help:"auto: a GPU if there is one and the model fits; cpu; cuda: a GPU or nothing."`
	DType   string `name:"dtype" enum:"auto,f32,bf16,trained" default:"auto" help:"Type of products with the base's weights: auto (bf16 on a GPU, f32 on the processor), f32 (the processor), bf16, or as the adapter was trained."`
	Threads int    `help:"Threads (default: all cores)." placeholder:"N"`
}

// open opens a model and says what it computes on.
func (u useFlags) open(base, adapter string) (*infer.Model, error) {
	m, err := infer.Open(baseFolder(base), adapterFolder(adapter), infer.Options{Threads: u.Threads, DType: u.DType, Device: u.Device, GPUs: usableGPUs})
	if err != nil {
		return nil, usage(err)
	}
	why := ""
	if p := m.Place(); p.Why != nil && !errors.Is(p.Why, driver.ErrOff) { // else lorad doctor says it
		why = fmt.Sprintf(" (%v)", p.Why)
	}
	fmt.Fprintf(os.Stderr, "computing on %s%s\n", m.Place(), why)
	return m, nil
}

// usableGPUs is this machine's that have kernels.
func usableGPUs() ([]infer.GPU, error) {
	watch, err := gpu.Open()
	if err != nil {
		watch = nil // nobody says what is free
	} else {
		defer watch.Close()
	}
	list, err := machineGPUs{watch}.List()
	if err != nil {
		return nil, err
	}
	var out []infer.GPU
	for _, g := range list {
		if g.Compute[0] >= node.LeastCompute {
			out = append(out, infer.GPU{Name: fmt.Sprintf("GPU %d (%s)", g.Index, g.Name), Free: g.Free, Open: machineGPUs{}.opener(g.Index)})
		}
	}
	return out, nil
}
