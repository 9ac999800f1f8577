package allreduce

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The assembly adds and rounds as the loops in Go do, wherever a value too large for it stands.
func TestExactLanesAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	for _, n := range []int{1, 7, 8, 9, 40, 1003} {
		for _, large := range []int{-1, 0, n / 2, n - 1} {
			g, v, want := make([]float32, n), make([]int64, n), make([]int64, n)
			for i := range g {
				g[i] = float32(r.NormFloat64() * math.Pow(2, float64(r.IntN(40)-30)))
				v[i] = r.Int64N(1<<50) - 1<<49
			}
			g[n/3] = 0x1.8p-40 // a tie
			if large >= 0 {
				g[large] = 1 << 15 // 2^55 units
			}
			copy(want, v)
			const scale = 1 << 40
			for i, x := range g {
				want[i] += int64(math.RoundToEven(float64(x) * scale))
			}
			if done := accumulate(v, g, scale, 1<<61); done != n {
				t.Fatalf("n=%d: %d added", n, done)
			}
			got := make([]float32, n)
			round(got, v, 0x1p-40)
			for i := range v {
				if v[i] != want[i] || got[i] != float32(want[i])*0x1p-40 {
					t.Fatalf("n=%d, large at %d: element %d is %d, %v, want %d, %v", n, large, i, v[i], got[i], want[i], float32(want[i])*0x1p-40)
				}
			}
		}
	}
	v := make([]int64, 24)
	g := make([]float32, 24)
	g[13] = float32(math.NaN())
	if done := accumulate(v, g, 1, 1<<61); done != 13 {
		t.Errorf("NaN at 13 stops after %d", done)
	}
}
