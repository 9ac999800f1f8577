//go:build cuda && linux

package cuda

import (
	"path/filepath"
	"testing"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/driver"
	"lorad/engine/cuda/kernels"
)

// throughDriver is the stand-in's libraries behind the driver that the program has: shim, gorgonia.org/cu, cuBLAS by name.
func throughDriver(t *testing.T, dir string, f func(t *testing.T, open func(testing.TB) device.Device)) {
	c := driver.Config{CUDA: filepath.Join(dir, "libcuda.so.1"), BLAS: filepath.Join(dir, "libcublas.so.12")}
	for _, m := range kernels.Modules() {
		c.PTX = append(c.PTX, m.PTX)
	}
	t.Run("driver", func(t *testing.T) {
		f(t, func(t testing.TB) device.Device { return must(driver.Open(c, 0))(t) })
	})
}
