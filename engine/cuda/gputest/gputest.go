// Package gputest opens the GPU that a test runs on: the stand-in (engine/cuda/standin), or with the flag -gpu this machine's own through the program's
// driver. So the tests that CI runs without a GPU are the very ones that scripts/gpu-check.sh runs on one.
package gputest

import (
	"errors"
	"flag"
	"path/filepath"
	"testing"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/driver"
	"lorad/engine/cuda/kernels"
	"lorad/engine/cuda/standin"
)

var (
	own      = flag.Bool("gpu", false, "test on this machine's GPU, not on the stand-in")
	sanitize = flag.Bool("sanitize", false, "run the kernels under AddressSanitizer, whose library has to be loaded already")
)

// Real says whether tests run on a GPU.
func Real() bool { return *own }

// Opener gives a device to a test, which closes it.
type Opener func() (device.Device, error)

// Open is the GPU, or the stand-in with its threads in some order; without g++ the test is skipped.
func Open(t testing.TB, order uint32) Opener {
	t.Helper()
	if *own {
		return throughDriver("")
	}
	dir := libraries(t)
	return func() (device.Device, error) { return standin.Open(standin.Options{Dir: dir, Order: order}) }
}

// Each runs a test on the GPU; or on the stand-in, without cgo and, where the build tag cuda has it, through the program's driver.
func Each(t *testing.T, f func(t *testing.T, open Opener)) {
	if *own {
		t.Run("GPU", func(t *testing.T) { f(t, throughDriver("")) })
		return
	}
	t.Run("standin", func(t *testing.T) { f(t, Open(t, 0)) })
	through := throughDriver(libraries(t))
	if d, err := through(); err == nil {
		d.Close()
		t.Run("driver", func(t *testing.T) { f(t, through) })
	} else if !errors.Is(err, driver.ErrOff) {
		t.Error(err)
	}
}

func libraries(t testing.TB) string {
	t.Helper()
	dir, err := standin.Build(*sanitize)
	if errors.Is(err, standin.ErrNoCompiler) {
		t.Skip("no g++ to build the stand-in GPU with")
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// throughDriver opens the libraries in a folder, or the system's.
func throughDriver(dir string) Opener {
	var c driver.Config
	if dir != "" {
		c.CUDA, c.BLAS = filepath.Join(dir, "libcuda.so.1"), filepath.Join(dir, "libcublas.so.12")
	}
	for _, m := range kernels.Modules() {
		c.PTX = append(c.PTX, m.PTX)
	}
	return func() (device.Device, error) { return driver.Open(c, 0) }
}
