package kernels_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/gputest"
	"lorad/engine/kernel"
)

// gpu is the stand-in, or with -gpu this machine's, for one test. What its methods are given lives as long as the test.
type gpu struct {
	testing.TB
	device.Device
	random *rand.Rand
}

// orders of threads and blocks that every kernel must give the same bits in.
var orders = []uint32{0, 1, 12344}

func open(t testing.TB, order uint32) gpu {
	t.Helper()
	d, err := gputest.Open(t, order)()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return gpu{t, d, rand.New(rand.NewPCG(1, 2))}
}

func (g gpu) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// room is memory for n bytes, full of NaN.
func (g gpu) room(n int) device.Ptr {
	p, err := g.Alloc(int64(max(n, 1)))
	g.must(err)
	g.Cleanup(func() { g.must(g.Release(p)) })
	return p
}

func put[T any](g gpu, x []T) device.Ptr {
	p := g.room(len(bytesOf(x)))
	g.must(g.Upload(p, bytesOf(x)))
	return p
}

func get[T any](g gpu, p device.Ptr, n int) []T {
	x := make([]T, n)
	g.must(g.Download(bytesOf(x), p))
	return x
}

func bytesOf[T any](x []T) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), binary.Size(x))
}

// run launches a kernel with so many threads and waits.
func (g gpu) run(name string, blocks, threads int, args ...any) {
	g.Helper()
	g.must(g.Launch(name, device.Grid{Blocks: [3]int{blocks}, Threads: threads}, args...))
	g.must(g.Sync())
}

// halves is numbers that bf16 holds; normal draws with a standard deviation of one.
func (g gpu) halves(n int) []uint16 {
	x := make([]uint16, n)
	for i := range x {
		x[i] = kernel.RoundBF16(float32(g.random.NormFloat64()))
	}
	return x
}

func (g gpu) floats(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(g.random.NormFloat64())
	}
	return x
}

func widen(x []uint16) []float64 {
	y := make([]float64, len(x))
	for i, h := range x {
		y[i] = float64(kernel.WidenBF16(h))
	}
	return y
}

// inner is a matrix [rows,n] without the gaps between its rows.
func inner[T any](x []T, rows, n, ld int) (y []T) {
	for r := range rows {
		y = append(y, x[r*ld:r*ld+n]...)
	}
	return y
}

// near compares with a tolerance relative to the largest magnitude of what is wanted.
func near[T float32 | float64](t testing.TB, what string, got []T, want []float64, tolerance float64) {
	t.Helper()
	scale := 0.0
	for _, w := range want {
		scale = math.Max(scale, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tolerance*scale) {
			t.Fatalf("%s: element %d of %d is %g, want %g (tolerance %g of %g)", what, i, len(want), got[i], w, tolerance, scale)
		}
	}
}

// same compares bits.
func same[T comparable](t testing.TB, what string, got, want []T) {
	t.Helper()
	for i, w := range want {
		if got[i] != w {
			t.Fatalf("%s: element %d of %d is %v, want %v", what, i, len(want), got[i], w)
		}
	}
}

// each runs a test in every order.
func each(t *testing.T, f func(g gpu)) {
	for _, order := range orders {
		f(open(t, order))
	}
}
