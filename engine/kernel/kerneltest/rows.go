package kerneltest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"lorad/engine/kernel"
)

// rowsAlone checks that a row of a product has the same bits alone and among others: what a model answers must not depend on who else asks.
func rowsAlone(t *testing.T, ops kernel.Ops[float32], p kernel.Precision) {
	r := rand.New(rand.NewPCG(19, 20))
	for _, s := range [][3]int{{21, 70, 33}, {21, 16, 1100}, {21, 4, 515}, {21, 300, 1030}} {
		m, n, k := s[0], s[1], s[2]
		a, b, u, v := random(r, m*k, 1).lo, random(r, n*k, 1).lo, random(r, m*5, 1).lo, random(r, n*5, 1).lo
		frozen := ops.Freeze(kernel.Dense[float32]{Rows: n, Cols: k, Data: b}, p)
		for what, product := range map[string]func(from, rows int, c []float32){
			"Gemm, rows of B":    func(i, rows int, c []float32) { ops.Gemm(false, true, rows, n, k, a[i*k:], k, b, k, c, n, false) },
			"Gemm, columns of B": func(i, rows int, c []float32) { ops.Gemm(false, false, rows, n, k, a[i*k:], k, b, n, c, n, false) },
			"Forward": func(i, rows int, c []float32) {
				frozen.Forward(rows, a[i*k:], k, c, n, false, kernel.LowRank[float32]{R: 5, U: u[i*5:], V: v})
			},
		} {
			all := make([]float32, m*n)
			product(0, m, all)
			for _, rows := range []int{1, 2, 3, 4, 8, 9} {
				part := make([]float32, rows*n)
				product(7, rows, part)
				sameRows(t, fmt.Sprintf("%s, m=%d n=%d k=%d, rows 7 to %d", what, m, n, k, 7+rows), part, all[7*n:])
			}
		}
	}
}

func sameRows(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, x := range got {
		if math.Float32bits(x) != math.Float32bits(want[i]) {
			t.Errorf("%s: element %d is %v, among the others %v", what, i, x, want[i])
			return
		}
	}
}
