package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/driver"
	"lorad/engine/cuda/kernels"
	"lorad/gpu"
	"lorad/internal/durable"
	"lorad/node"
)

// gpuConfig is where CUDA's libraries are, and the kernels that run with them.
func gpuConfig() (c driver.Config) {
	for _, m := range kernels.Modules() {
		c.PTX = append(c.PTX, m.PTX)
	}
	c.Tuned = readTuned()
	return c
}

// tunedPath is what lorad bench --gpu --tune found, for this user. It changes how long things take and nothing else, so it is looked for where things are that
// may be lost.
func tunedPath() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "lorad", "products.json"), err
}

// readTuned is nothing if there is none, or more than there can be.
func readTuned() []byte {
	const most = 16 << 20
	path, err := tunedPath()
	if err != nil {
		return nil
	}
	if info, err := os.Stat(path); err != nil || info.Size() > most {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return text
}

func writeTuned(text []byte) error {
	path, err := tunedPath()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err != nil {
		return fmt.Errorf("bench --tune: keep the tables: %w", err)
	}
	return durable.WriteFile(path, text, 0o600)
}

// machineGPUs is what this machine has.
type machineGPUs struct {
	watch *gpu.Monitor // nil: nobody says what is free
}

// List asks the driver what there is, and NVML what of it is free: CUDA itself would take a context's memory to say.
func (g machineGPUs) List() ([]node.GPU, error) {
	all, err := driver.List(driver.Config{})
	if err != nil {
		return nil, err
	}
	var now gpu.Inventory
	if g.watch != nil {
		now, _ = g.watch.Look() // those that answer
	}
	var out []node.GPU
	for i, d := range all {
		is, _ := now.Find(d.UUID)
		out = append(out, node.GPU{Index: i, Name: d.Name, Compute: d.Compute, Free: int64(is.Free)})
	}
	return out, nil
}

func (machineGPUs) Open(index int) (device.Device, error) { return driver.Open(gpuConfig(), index) }

func (m machineGPUs) opener(index int) func() (device.Device, error) {
	return func() (device.Device, error) { return m.Open(index) }
}

// openGPU opens the first GPU of this machine, or says why there is none.
func openGPU() (device.Device, error) { return machineGPUs{}.Open(0) }

// engineName is what a node of this machine computes on, as it tells the cluster.
func engineName() string {
	all, err := driver.List(driver.Config{})
	if err == nil && slices.ContainsFunc(all, func(d device.Info) bool { return d.Compute[0] >= node.LeastCompute }) {
		return "cuda"
	}
	return "cpu"
}
