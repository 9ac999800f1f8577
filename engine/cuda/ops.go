package cuda

import "lorad/engine/cuda/device"

// ops is the device with kernels as methods. The first error stays, and nothing is launched after it: so a step reads as the sequence of
// calls that it is, and says at its end whether all went well.
type ops struct {
	dev device.Device
	err error
}

// take returns the error and forgets it.
func (o *ops) take() error {
	err := o.err
	o.err = nil
	return err
}

func (o *ops) launch(kernel string, g device.Grid, args ...any) {
	if o.err == nil {
		o.err = o.dev.Launch(kernel, g, args...)
	}
}

func (o *ops) zero(p device.Ptr, bytes int64) {
	if o.err == nil && bytes > 0 {
		o.err = o.dev.Zero(p, bytes)
	}
}

func (o *ops) copy(dst, src device.Ptr, bytes int64) {
	if o.err == nil {
		o.err = o.dev.Copy(dst, src, bytes)
	}
}

func (o *ops) upload(dst device.Ptr, src []byte) {
	if o.err == nil && len(src) > 0 {
		o.err = o.dev.Upload(dst, src)
	}
}

func (o *ops) download(dst []byte, src device.Ptr) {
	if o.err == nil && len(dst) > 0 {
		o.err = o.dev.Download(dst, src)
	}
}

// matrix is a part of device memory as a row-major matrix of bf16; wide is one of f32.
func matrix(at device.Ptr, ld int) device.Matrix {
	return device.Matrix{At: at, LD: ld, Type: device.BF16}
}
func wide(at device.Ptr, ld int) device.Matrix {
	return device.Matrix{At: at, LD: ld, Type: device.F32}
}

// right is the part of a matrix of bf16 from a column on; below that from a row on.
func right(m device.Matrix, col int) device.Matrix {
	m.At += device.Ptr(col * m.Type.Size())
	return m
}

func below(m device.Matrix, row int) device.Matrix {
	m.At += device.Ptr(row * m.LD * m.Type.Size())
	return m
}

// xwt is c[m,n] = alpha * x[m,k] w[n,k]^T + beta * c; xw is that with w[k,n]; xtw, without the old c, that with x[k,m] and w[k,n].
func (o *ops) xwt(m, n, k int, alpha float32, x, w device.Matrix, beta float32, c device.Matrix) {
	o.gemm(false, true, m, n, k, alpha, x, w, beta, c)
}

func (o *ops) xw(m, n, k int, alpha float32, x, w device.Matrix, beta float32, c device.Matrix) {
	o.gemm(false, false, m, n, k, alpha, x, w, beta, c)
}

func (o *ops) xtw(m, n, k int, alpha float32, x, w, c device.Matrix) {
	o.gemm(true, false, m, n, k, alpha, x, w, 0, c)
}

func (o *ops) gemm(ta, tb bool, m, n, k int, alpha float32, a, b device.Matrix, beta float32, c device.Matrix) {
	if o.err == nil {
		o.err = o.dev.Gemm(ta, tb, m, n, k, alpha, a, b, beta, c)
	}
}
