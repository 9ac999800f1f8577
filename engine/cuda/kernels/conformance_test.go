package kernels_test

import (
	"testing"

	"lorad/engine/cuda/device"
	"lorad/engine/kernel"
	"lorad/engine/kernel/kerneltest"
)

// onGPU computes its products in f32 through the device, and the rest by the reference. The other operations of the suite are held to f32's rounding; on the
// GPU they are kernels between activations in bf16, with tests of their own here.
type onGPU struct {
	kernel.Ref[float32]
	gpu
}

func (o onGPU) Gemm(transA, transB bool, m, n, k int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	var beta float32
	if acc {
		beta = 1
	}
	at, bt, ct := o.borrow(a), o.borrow(b), o.borrow(c)
	f32 := func(p device.Ptr, ld int) device.Matrix { return device.Matrix{At: p, LD: ld, Type: device.F32} }
	o.must(o.Device.Gemm(transA, transB, m, n, k, 1, f32(at, lda), f32(bt, ldb), beta, f32(ct, ldc)))
	if len(c) > 0 {
		o.must(o.Download(bytesOf(c), ct))
	}
	for _, p := range []device.Ptr{at, bt, ct} {
		o.must(o.Release(p))
	}
}

// borrow copies to memory that the caller releases.
func (o onGPU) borrow(x []float32) device.Ptr {
	p, err := o.Alloc(int64(max(4*len(x), 4)))
	o.must(err)
	o.must(o.Upload(p, bytesOf(x)))
	return p
}

func (o onGPU) Gemm1(transA, transB bool, m, n, k int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	o.Gemm(transA, transB, m, n, k, a, lda, b, ldb, c, ldc, acc)
}

// The stand-in for cuBLAS, as row-major callers use it.
func TestConformance(t *testing.T) {
	kerneltest.Conformance(t, onGPU{kernel.Ref[float32]{}, open(t, 0)})
}
