package cpu

import (
	"fmt"
	"testing"
	"time"
)

// shapes of the embedded model (m rows of tokens) and of a 1 B model. The forward product is X W^T, the gradient by the input
// dY W, the gradient by the weight dY^T X.
var benchShapes = []struct {
	name           string
	transA, transB bool
	m, n, k        int
}{
	{"forward", false, true, 1000, 128, 128},
	{"forward", false, true, 1000, 384, 128},
	{"forward", false, true, 1000, 128, 384},
	{"forward", false, true, 1000, 2048, 128},
	{"forward", false, true, 200, 384, 128},
	{"forward", false, true, 1000, 16, 128},
	{"forward", false, true, 1000, 128, 16},
	{"input", false, false, 1000, 128, 384},
	{"input", false, false, 1000, 384, 128},
	{"input", false, false, 1000, 128, 2048},
	{"weight", true, false, 128, 128, 1000},
	{"weight", true, false, 384, 128, 1000},
	{"weight", true, false, 2048, 128, 1000},
	{"weight", true, false, 16, 128, 1000},
	{"weight", true, false, 128, 16, 1000},
	{"generate", false, true, 1, 2048, 128},
	{"generate", false, true, 2, 2048, 128},
	{"generate", false, true, 3, 2048, 128},
	{"generate", false, true, 4, 2048, 128},
	{"generate", false, true, 1, 2048, 2048},
	{"generate", false, true, 3, 2048, 2048},
	{"generate", false, true, 4, 2048, 2048},
	{"scores", false, true, 128, 128, 32},
	{"values", false, false, 128, 32, 128},
	{"forward", false, true, 256, 2048, 2048},
	{"forward", false, true, 1024, 2048, 5632},
	{"input", false, false, 256, 2048, 2048},
	{"weight", true, false, 2048, 2048, 256},
	{"forward", false, true, 1024, 16, 2048},
	{"forward", false, true, 1024, 2048, 16},
}

// BenchmarkGemm reports GFLOP/s and the share of what a loop of multiply-adds in registers reaches on one core, measured
// in the same run, times the threads.
func BenchmarkGemm(b *testing.B) {
	levels := Available()
	for _, l := range levels[len(levels)-1:] {
		for _, threads := range []int{1, 2} {
			for _, s := range benchShapes {
				b.Run(fmt.Sprintf("%s/%d/%s/%dx%dx%d", l, threads, s.name, s.m, s.n, s.k), func(b *testing.B) {
					benchGemm(b, l, threads, s.transA, s.transB, s.m, s.n, s.k)
				})
			}
		}
	}
}

func benchGemm(b *testing.B, l Level, threads int, transA, transB bool, m, n, k int) {
	o, err := NewLevel(threads, l)
	if err != nil {
		b.Fatal(err)
	}
	x, y, z := make([]float32, m*k), make([]float32, n*k), make([]float32, m*n)
	for i := range x {
		x[i] = float32(i%17) - 8
	}
	for i := range y {
		y[i] = float32(i%13) - 6
	}
	lda, ldb := k, n
	if transA {
		lda = m
	}
	if transB {
		ldb = k
	}
	best := time.Hour // of all runs: the machine may be shared
	for b.Loop() {
		start := time.Now()
		o.Gemm(transA, transB, m, n, k, x, lda, y, ldb, z, n, false)
		best = min(best, time.Since(start))
	}
	flops := 2 * float64(m) * float64(n) * float64(k) / best.Seconds() / 1e9
	b.ReportMetric(flops, "GFLOP/s")
	b.ReportMetric(100*flops/(peak(kernelsOf(l).wide)*float64(threads)), "%peak")
	b.ReportMetric(0, "ns/op")
}

// peak is GFLOP/s of one core doing nothing but multiply-adds in registers: a tile whose operands stay in the first cache, long
// enough for everything else not to count.
func peak(t tile) float64 {
	const k = 4096
	a, bb, c := make([]float32, maxRows), make([]float32, maxCols), make([]float32, maxRows*maxCols)
	best := 0.0
	for range 20 {
		start := time.Now()
		for range 4 {
			t.run(k, &a[0], 1, 0, &bb[0], 0, &c[0], t.cols, false, &a[0])
		}
		best = max(best, 4*2*k*float64(t.rows*t.cols)/time.Since(start).Seconds()/1e9)
	}
	return best
}
