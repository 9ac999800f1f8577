package main

import (
	"lorad/engine/cuda/device"
	"lorad/engine/cuda/driver"
	"lorad/engine/cuda/kernels"
)

// gpuConfig is where CUDA's libraries are, and the kernels that run with them.
func gpuConfig() (c driver.Config) {
	for _, m := range kernels.Modules() {
		c.PTX = append(c.PTX, m.PTX)
	}
	return c
}

// openGPU opens the first GPU of this machine, or says why there is none.
func openGPU() (device.Device, error) { return driver.Open(gpuConfig(), 0) }
