//go:build cuda && linux

package driver

import (
	"errors"
	"fmt"

	"gorgonia.org/cu"

	"lorad/engine/cuda/device"
)

// gpu is one device. Everything below its exported methods runs on its thread.
type gpu struct {
	on        *thread
	index     int
	info      device.Info
	cuda      cu.Device
	stream    cu.Stream
	blas      *blas
	kernels   kernels
	staging   staging
	recording bool
}

// Open takes the device with a primary context of its own, as the driver gives each process one, and the libraries that belong to it.
func Open(c Config, index int) (device.Device, error) {
	if err := load(c.CUDA); err != nil {
		return nil, err
	}
	g := &gpu{on: startThread(), index: index}
	if err := g.on.do(func() error { return g.open(c) }); err != nil {
		g.Close()
		return nil, g.failed("open", err)
	}
	return g, nil
}

func (g *gpu) open(c Config) (err error) {
	if err := complete(); err != nil {
		return err
	}
	if g.info, err = describe(g.index); err != nil {
		return err
	}
	g.cuda = cu.Device(g.index)
	context, err := g.cuda.RetainPrimaryCtx()
	if err != nil {
		return err
	}
	if err = cu.SetCurrentContext(context); err != nil {
		return err
	}
	if g.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return err
	}
	if err = g.staging.open(); err != nil {
		return err
	}
	if g.blas, err = openBLAS(c, g.info.Name, g.stream); err != nil {
		return err
	}
	g.info.BLAS = g.blas.name()
	return g.kernels.add(c.PTX)
}

func (g *gpu) Close() error {
	return g.on.end(func() error {
		var errs []error
		if g.stream != cu.NoStream {
			errs = append(errs, g.stream.Synchronize())
		}
		if g.blas != nil {
			errs = append(errs, g.blas.close())
		}
		errs = append(errs, g.staging.close(), g.kernels.close())
		if g.stream != cu.NoStream {
			errs = append(errs, g.stream.Destroy(), g.cuda.ReleasePrimaryCtx())
		}
		return g.failed("close", errors.Join(errs...))
	})
}

// failed says on which device what failed.
func (g *gpu) failed(operation string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cu.OutOfMemory):
		err = fmt.Errorf("%w: %w", device.ErrOutOfMemory, err)
	case errors.Is(err, cu.IllegalAddress), errors.Is(err, cu.LaunchFailed), errors.Is(err, cu.EccUncorrectable):
		err = fmt.Errorf("%w: the process must be started again to use this GPU", err)
	}
	return fmt.Errorf("CUDA device %d: %s: %w", g.index, operation, err)
}

func (g *gpu) do(operation string, f func() error) error {
	return g.failed(operation, g.on.do(f))
}

// outside is do, for what may not be recorded.
func (g *gpu) outside(operation string, f func() error) error {
	return g.do(operation, func() error {
		if g.recording {
			return errors.New("not within a recording")
		}
		return f()
	})
}

func (g *gpu) Info() device.Info { return g.info }

func (g *gpu) Free() (free int64, err error) {
	err = g.do("free memory", func() (err error) { free, _, err = cu.MemInfo(); return err })
	return free, err
}

func (g *gpu) Alloc(bytes int64) (p device.Ptr, err error) {
	err = g.outside(fmt.Sprintf("allocate %d bytes", bytes), func() error {
		at, err := cu.MemAlloc(bytes)
		p = device.Ptr(at)
		if err != nil {
			if free, _, e := cu.MemInfo(); e == nil {
				err = fmt.Errorf("%w (%d bytes are free)", err, free)
			}
		}
		return err
	})
	return p, err
}

func (g *gpu) Release(p device.Ptr) error {
	return g.outside("release", func() error { return cu.MemFree(cu.DevicePtr(p)) })
}

func (g *gpu) Copy(dst, src device.Ptr, bytes int64) error {
	return g.do("copy", func() error { return cu.MemcpyDtoDAsync(cu.DevicePtr(dst), cu.DevicePtr(src), bytes, g.stream) })
}

func (g *gpu) Zero(dst device.Ptr, bytes int64) error {
	return g.do("zero", func() error { return cu.MemsetD8Async(cu.DevicePtr(dst), 0, bytes, g.stream) })
}

func (g *gpu) Upload(dst device.Ptr, src []byte) error {
	return g.outside("upload", func() error { return g.staging.upload(dst, src, g.stream) })
}

func (g *gpu) Download(dst []byte, src device.Ptr) error {
	return g.outside("download", func() error { return g.staging.fetch(dst, src, g.stream, nil) })
}

func (g *gpu) Fetch(dst []byte, src device.Ptr, arrived func(n int)) error {
	return g.outside("download", func() error { return g.staging.fetch(dst, src, g.stream, arrived) })
}

func (g *gpu) Pin(host []byte) error {
	return g.outside(fmt.Sprintf("pin %d bytes", len(host)), func() error { return g.staging.add(host) })
}

func (g *gpu) Unpin(host []byte) error {
	return g.outside(fmt.Sprintf("unpin %d bytes", len(host)), func() error { return g.staging.remove(host) })
}

func (g *gpu) Sync() error { return g.outside("wait", g.stream.Synchronize) }

func (g *gpu) Launch(kernel string, grid device.Grid, args ...any) error {
	return g.do("launch "+kernel, func() error { return g.kernels.launch(kernel, grid, args, g.stream) })
}

func (g *gpu) Gemm(transA, transB bool, m, n, k int, alpha float32, a, b device.Matrix, beta float32, c device.Matrix) error {
	return g.do("matrix product", func() error { return g.blas.gemm(transA, transB, m, n, k, alpha, a, b, beta, c) })
}
