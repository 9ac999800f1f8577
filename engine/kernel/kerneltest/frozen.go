package kerneltest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"lorad/engine/kernel"
)

// frozenShapes are rows, out, in, rank: like shapes, with more than one block of either width.
var frozenShapes = [][4]int{
	{1, 1, 1, 0}, {1, 40, 70, 2}, {2, 33, 17, 1}, {3, 16, 64, 0}, {5, 31, 33, 4}, {8, 64, 32, 8}, {9, 5, 600, 3}, {17, 530, 66, 5}, {40, 70, 1100, 16}, {66, 300, 35, 0},
}

// frozen checks both products of a weight, and its rows.
func frozen(t *testing.T, freeze func(kernel.Matrix[float32], kernel.Precision) kernel.Frozen[float32], p kernel.Precision) {
	r := rand.New(rand.NewPCG(17, 18))
	for _, s := range frozenShapes {
		out, in := s[1], s[2]
		w := random(r, out*in, 1)
		lo := freeze(kernel.Dense[float32]{Rows: out, Cols: in, Data: w.lo}, p)
		hi := kernel.NewRef[float64]().Freeze(kernel.Dense[float64]{Rows: out, Cols: in, Data: w.hi}, p)
		if o, i := lo.Shape(); o != out || i != in {
			t.Errorf("shape %d x %d, want %d x %d", o, i, out, in)
		}
		row := vec{make([]float32, in), make([]float64, in)}
		lo.Row(out-1, row.lo)
		hi.Row(out-1, row.hi)
		row.compare(t, "last row")
		for _, acc := range []bool{false, true} {
			for _, gap := range []int{0, 7} {
				oneFrozen(t, r, lo, hi, s, gap, acc)
			}
		}
	}
}

func oneFrozen(t *testing.T, r *rand.Rand, lo kernel.Frozen[float32], hi kernel.Frozen[float64], s [4]int, gap int, acc bool) {
	rows, out, in, rank := s[0], s[1], s[2], s[3]
	what := fmt.Sprintf("rows=%d out=%d in=%d rank=%d gap=%d acc=%v", rows, out, in, rank, gap, acc)
	u, b, a := random(r, rows*rank, 1), random(r, out*rank, 1), random(r, rank*in, 1)
	x, dy := matrix(r, rows, in, in+gap), matrix(r, rows, out, out+gap)
	y, dx := matrix(r, rows, out, out+gap), matrix(r, rows, in, in+gap)
	if !acc {
		y, dx = filled(len(y.lo), math.NaN()), filled(len(dx.lo), math.NaN())
	}
	lo.Forward(rows, x.lo, in+gap, y.lo, out+gap, acc, kernel.LowRank[float32]{R: rank, U: u.lo, V: b.lo})
	hi.Forward(rows, x.hi, in+gap, y.hi, out+gap, acc, kernel.LowRank[float64]{R: rank, U: u.hi, V: b.hi})
	y.compare(t, "forward, "+what)
	lo.Backward(rows, dy.lo, out+gap, dx.lo, in+gap, acc, kernel.LowRank[float32]{R: rank, U: u.lo, V: a.lo})
	hi.Backward(rows, dy.hi, out+gap, dx.hi, in+gap, acc, kernel.LowRank[float64]{R: rank, U: u.hi, V: a.hi})
	dx.compare(t, "backward, "+what)
}
