// Package kerneltest holds every implementation of kernel.Ops to the reference computed in float64.
//
// The measure is ||got - want|| / ||want|| over a whole output, which is what a gradient is judged by; an element may be off by
// more where terms cancel. Sizes are odd on purpose: tiles have edges, strides are wider than rows, and what lies between the
// rows and beyond the output must be left as it was.
package kerneltest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"lorad/engine/kernel"
)

// tolerance is for one operation in float32 with sums of up to some thousand terms.
const tolerance = 3e-6

// Conformance fails t wherever ops differs from the reference by more than rounding.
func Conformance(t *testing.T, ops kernel.Ops[float32]) {
	ref := kernel.NewRef[float64]()
	t.Run("Gemm", func(t *testing.T) { gemms(t, ops.Gemm, kernel.NewRef[float64]().Gemm) })
	t.Run("Gemm1", func(t *testing.T) { gemms(t, ops.Gemm1, kernel.NewRef[float64]().Gemm1) })
	for _, p := range []kernel.Precision{kernel.F32, kernel.BF16} {
		t.Run("Freeze/"+p.String(), func(t *testing.T) { frozen(t, ops.Freeze, p) })
		t.Run("Keep/"+p.String(), func(t *testing.T) { frozen(t, ops.Keep, p) })
		t.Run("RowsAlone/"+p.String(), func(t *testing.T) { rowsAlone(t, ops, p) })
	}
	t.Run("GemmRepeats", func(t *testing.T) { repeats(t, ops) })
	t.Run("Parallel", func(t *testing.T) { parallel(t, ops) })
	t.Run("Axpy", func(t *testing.T) { axpy(t, ops) })
	t.Run("Scale", func(t *testing.T) { scale(t, ops) })
	t.Run("RMSNorm", func(t *testing.T) { rmsNorm(t, ops) })
	t.Run("Rope", func(t *testing.T) { rope(t, ops) })
	t.Run("CausalSoftmax", func(t *testing.T) { causalSoftmax(t, ops) })
	t.Run("SwiGLU", func(t *testing.T) { gated(t, ops.SwiGLU, ops.SwiGLUBackward, ref.SwiGLU, ref.SwiGLUBackward) })
	t.Run("GeGLU", func(t *testing.T) { gated(t, ops.GeGLU, ops.GeGLUBackward, ref.GeGLU, ref.GeGLUBackward) })
	t.Run("CrossEntropy", func(t *testing.T) { crossEntropy(t, ops) })
}

// vec is one argument in both precisions: lo goes to the implementation, hi to the reference.
type vec struct {
	lo []float32
	hi []float64
}

func random(r *rand.Rand, n int, scale float64) vec {
	v := vec{make([]float32, n), make([]float64, n)}
	for i := range v.lo {
		v.lo[i] = float32(r.NormFloat64() * scale)
		v.hi[i] = float64(v.lo[i])
	}
	return v
}

// filled is a vec of one value; NaN marks what must not be read.
func filled(n int, x float64) vec {
	v := vec{make([]float32, n), make([]float64, n)}
	for i := range v.lo {
		v.lo[i], v.hi[i] = float32(x), x
	}
	return v
}

func (v vec) compare(t *testing.T, what string) {
	t.Helper()
	var diff, norm float64
	for i, x := range v.lo {
		if y := v.hi[i]; math.IsNaN(y) != math.IsNaN(float64(x)) {
			t.Errorf("%s: element %d is %v, want %v", what, i, x, y)
			return
		} else if !math.IsNaN(y) {
			diff += (float64(x) - y) * (float64(x) - y)
			norm += y * y
		}
	}
	if e := math.Sqrt(diff / max(norm, 1e-30)); !(e <= tolerance) {
		t.Errorf("%s: ||got-want||/||want|| = %.3g, want at most %.3g", what, e, tolerance)
	}
}

type gemm[T kernel.Float] func(transA, transB bool, m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int, acc bool)

// shapes are m, n, k. They straddle the tile sizes an implementation is likely to have (4 to 32 wide, blocks of 64 to 512).
var shapes = [][3]int{
	{1, 1, 1}, {1, 7, 1}, {5, 1, 3}, {3, 5, 0}, {1, 33, 17}, {6, 16, 8}, {7, 17, 9}, {12, 32, 1}, {13, 31, 64}, {16, 48, 33},
	{31, 65, 127}, {64, 64, 64}, {97, 8, 129}, {8, 97, 200}, {130, 70, 5}, {1, 257, 384}, {65, 129, 257}, {33, 300, 513}, {200, 2, 700}, {4, 520, 31},
}

func gemms(t *testing.T, lo gemm[float32], hi gemm[float64]) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range shapes {
		for mode := range 8 {
			transA, transB, acc := mode&1 != 0, mode&2 != 0, mode&4 != 0
			for _, gap := range []int{0, 3, 16} {
				oneGemm(t, r, lo, hi, s, gap, transA, transB, acc)
			}
		}
	}
}

func oneGemm(t *testing.T, r *rand.Rand, lo gemm[float32], hi gemm[float64], s [3]int, gap int, transA, transB, acc bool) {
	m, n, k := s[0], s[1], s[2]
	ra, ca, rb, cb := m, k, k, n
	if transA {
		ra, ca = k, m
	}
	if transB {
		rb, cb = n, k
	}
	lda, ldb, ldc := ca+gap, cb+gap, n+gap
	a, b := matrix(r, ra, ca, lda), matrix(r, rb, cb, ldb)
	c := matrix(r, m, n, ldc)
	if !acc {
		c = filled(len(c.lo), math.NaN())
	}
	lo(transA, transB, m, n, k, a.lo, lda, b.lo, ldb, c.lo, ldc, acc)
	hi(transA, transB, m, n, k, a.hi, lda, b.hi, ldb, c.hi, ldc, acc)
	c.compare(t, fmt.Sprintf("m=%d n=%d k=%d gap=%d transA=%v transB=%v acc=%v", m, n, k, gap, transA, transB, acc))
}

// matrix is random inside, NaN in the gaps, and exactly as long as it must be: its last row has no gap.
func matrix(r *rand.Rand, rows, cols, ld int) vec {
	if rows == 0 || cols == 0 {
		return vec{}
	}
	v := random(r, (rows-1)*ld+cols, 1)
	for i := range v.lo {
		if i%ld >= cols {
			v.lo[i], v.hi[i] = float32(math.NaN()), math.NaN()
		}
	}
	return v
}

// repeats checks that bits do not depend on where the operands lie, nor on the run.
func repeats(t *testing.T, ops kernel.Ops[float32]) {
	r := rand.New(rand.NewPCG(3, 4))
	const m, n, k = 67, 93, 301
	a, b := random(r, m*k, 1), random(r, n*k, 1)
	var first []float32
	for shift := range 6 {
		sa, sb := append(make([]float32, shift), a.lo...), append(make([]float32, 2*shift), b.lo...)
		c := make([]float32, m*n+shift)[shift:]
		ops.Gemm(false, true, m, n, k, sa[shift:], k, sb[2*shift:], k, c, n, false)
		if first == nil {
			first = c
		}
		for i := range c {
			if math.Float32bits(c[i]) != math.Float32bits(first[i]) {
				t.Fatalf("operands shifted by %d elements: element %d is %v, was %v", shift, i, c[i], first[i])
			}
		}
	}
}

func parallel(t *testing.T, ops kernel.Ops[float32]) {
	for _, n := range []int{0, 1, 2, 3, 7, 64, 1000} {
		done := make([]atomic.Int32, n)
		ops.Parallel(n, func(i int) { done[i].Add(1) })
		for i := range done {
			if c := done[i].Load(); c != 1 {
				t.Errorf("n=%d: f(%d) ran %d times, want 1", n, i, c)
			}
		}
	}
}

// widths straddle vector lengths.
var widths = []int{1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100, 255, 384}

func axpy(t *testing.T, ops kernel.Ops[float32]) {
	r, ref := rand.New(rand.NewPCG(5, 6)), kernel.NewRef[float64]()
	for _, n := range append(widths, 0) {
		x, y := random(r, n, 1), random(r, n, 1)
		ops.Axpy(0.75, x.lo, y.lo)
		ref.Axpy(0.75, x.hi, y.hi)
		y.compare(t, fmt.Sprintf("n=%d", n))
	}
}

func scale(t *testing.T, ops kernel.Ops[float32]) {
	r := rand.New(rand.NewPCG(23, 24))
	for _, n := range []int{0, 1, 7, 8, 100} {
		x := random(r, n, 1)
		ops.Scale(0.75, x.lo)
		kernel.NewRef[float64]().Scale(0.75, x.hi)
		x.compare(t, fmt.Sprintf("n=%d", n))
	}
}

func rmsNorm(t *testing.T, ops kernel.Ops[float32]) {
	r, ref := rand.New(rand.NewPCG(7, 8)), kernel.NewRef[float64]()
	for i, n := range widths {
		rows := 1 + i%5
		x, w, dy := random(r, rows*n, 2), random(r, n, 1), random(r, rows*n, 1)
		y, inv := filled(rows*n, math.NaN()), filled(rows, math.NaN())
		ops.RMSNorm(rows, n, y.lo, inv.lo, x.lo, w.lo, 1e-5)
		ref.RMSNorm(rows, n, y.hi, inv.hi, x.hi, w.hi, 1e-5)
		y.compare(t, fmt.Sprintf("y, rows=%d n=%d", rows, n))
		inv.compare(t, fmt.Sprintf("inv, rows=%d n=%d", rows, n))
		dx, dw := random(r, rows*n, 1), random(r, n, 1)
		ops.RMSNormBackward(rows, n, dx.lo, dw.lo, dy.lo, x.lo, w.lo, inv.lo)
		ref.RMSNormBackward(rows, n, dx.hi, dw.hi, dy.hi, x.hi, w.hi, inv.hi)
		dx.compare(t, fmt.Sprintf("dx, rows=%d n=%d", rows, n))
		dw.compare(t, fmt.Sprintf("dw, rows=%d n=%d", rows, n))
		ops.RMSNormBackward(rows, n, dx.lo, nil, dy.lo, x.lo, w.lo, inv.lo)
		ref.RMSNormBackward(rows, n, dx.hi, nil, dy.hi, x.hi, w.hi, inv.hi)
		dx.compare(t, fmt.Sprintf("dx without dw, rows=%d n=%d", rows, n))
	}
}

func rope(t *testing.T, ops kernel.Ops[float32]) {
	r, ref := rand.New(rand.NewPCG(9, 10)), kernel.NewRef[float64]()
	for _, d := range []int{2, 6, 8, 16, 32, 34, 64, 128} {
		for _, gap := range []int{0, 5} {
			const rows = 5
			x, c, s := matrix(r, rows, d, d+gap), random(r, rows*d/2, 1), random(r, rows*d/2, 1)
			for _, inverse := range []bool{false, true} {
				ops.Rope(rows, d, x.lo, d+gap, c.lo, s.lo, inverse)
				ref.Rope(rows, d, x.hi, d+gap, c.hi, s.hi, inverse)
				x.compare(t, fmt.Sprintf("d=%d gap=%d inverse=%v", d, gap, inverse))
			}
		}
	}
}

func causalSoftmax(t *testing.T, ops kernel.Ops[float32]) {
	r, ref := rand.New(rand.NewPCG(11, 12)), kernel.NewRef[float64]()
	for _, s := range [][3]int{{1, 1, 0}, {1, 9, 8}, {3, 3, 0}, {5, 12, 3}, {17, 17, 0}, {16, 64, 48}, {33, 70, 37}} {
		rows, cols, first := s[0], s[1], s[2]
		for _, gap := range []int{0, 5} {
			what := fmt.Sprintf("rows=%d cols=%d first=%d gap=%d", rows, cols, first, gap)
			p, dp := causal(r, rows, cols, first, gap), causal(r, rows, cols, first, gap)
			raw := vec{append([]float32(nil), p.lo...), append([]float64(nil), p.hi...)}
			lse := filled(rows, math.NaN())
			ops.CausalSoftmax(rows, cols, first, p.lo, cols+gap, 0.37, lse.lo)
			ref.CausalSoftmax(rows, cols, first, p.hi, cols+gap, 0.37, lse.hi)
			p.compare(t, "p, "+what)
			lse.compare(t, "lse, "+what)
			ops.CausalSoftmaxBackward(rows, cols, first, raw.lo, dp.lo, cols+gap, 0.37, lse.lo)
			ref.CausalSoftmaxBackward(rows, cols, first, raw.hi, dp.hi, cols+gap, 0.37, lse.hi)
			raw.compare(t, "recomputed p, "+what)
			dp.compare(t, "ds, "+what)
		}
	}
}

// causal is a score matrix with NaN wherever a row must not look.
func causal(r *rand.Rand, rows, cols, first, gap int) vec {
	v := matrix(r, rows, cols, cols+gap)
	for i := range rows {
		for j := first + i + 1; j < cols; j++ {
			v.lo[i*(cols+gap)+j], v.hi[i*(cols+gap)+j] = float32(math.NaN()), math.NaN()
		}
	}
	return v
}

func gated(t *testing.T, act func(h, gate, up []float32), back func(dgate, dup, dh, gate, up []float32),
	refAct func(h, gate, up []float64), refBack func(dgate, dup, dh, gate, up []float64)) {
	r := rand.New(rand.NewPCG(13, 14))
	for _, n := range widths {
		gate, up, dh := random(r, n, 4), random(r, n, 1), random(r, n, 1)
		gate.lo[0], gate.hi[0] = -120, -120 // exp(120) is infinite in float32
		h, dg := filled(n, math.NaN()), filled(n, math.NaN())
		act(h.lo, gate.lo, up.lo)
		refAct(h.hi, gate.hi, up.hi)
		h.compare(t, fmt.Sprintf("h, n=%d", n))
		back(dg.lo, dh.lo, dh.lo, gate.lo, up.lo)
		refBack(dg.hi, dh.hi, dh.hi, gate.hi, up.hi)
		if n > 1 { // alone, the element at -120 is 0 in one precision and 1e-50 in the other
			dg.compare(t, fmt.Sprintf("dgate, n=%d", n))
			dh.compare(t, fmt.Sprintf("dup in place of dh, n=%d", n))
		}
	}
}

func crossEntropy(t *testing.T, ops kernel.Ops[float32]) {
	r, ref := rand.New(rand.NewPCG(15, 16)), kernel.NewRef[float64]()
	for i, n := range append(widths, 2048) {
		rows := 1 + i%4
		x := random(r, rows*n, 3)
		labels := make([]int32, rows)
		for j := range labels {
			labels[j] = int32(r.IntN(n))
		}
		for _, grad := range []bool{false, true} {
			what := fmt.Sprintf("rows=%d n=%d grad=%v", rows, n, grad)
			loss := vec{nil, make([]float64, rows)}
			got := make([]float64, rows)
			ops.CrossEntropy(rows, n, x.lo, labels, got, 0.125, grad)
			ref.CrossEntropy(rows, n, x.hi, labels, loss.hi, 0.125, grad)
			for j, want := range loss.hi {
				if d := math.Abs(got[j] - want); !(d <= 1e-5*max(1, want)) {
					t.Errorf("loss of row %d, %s: %v, want %v", j, what, got[j], want)
				}
			}
			if n > 1 { // with one class the gradient is 0 up to rounding
				x.compare(t, "x, "+what)
			}
		}
	}
}
