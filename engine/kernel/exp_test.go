package kernel

import (
	"math"
	"testing"
)

func TestExp32(t *testing.T) {
	worst := 0.0
	for i := -87.33; i < 88.72; i += 0.000731 {
		x := float32(i)
		want := math.Exp(float64(x))
		ulp := float64(math.Nextafter32(float32(want), float32(math.Inf(1))) - float32(want))
		worst = max(worst, math.Abs(float64(Exp32(x))-want)/ulp)
	}
	if worst > 2 {
		t.Errorf("worst error %.2f ulp, want at most 2", worst)
	}
	for x, want := range map[float32]float32{0: 1, -200: 0, 100: float32(math.Inf(1)), float32(math.Inf(-1)): 0, float32(math.Inf(1)): float32(math.Inf(1))} {
		if got := Exp32(x); got != want {
			t.Errorf("Exp32(%v) = %v, want %v", x, got, want)
		}
	}
	if got := Exp32(float32(math.NaN())); got == got {
		t.Errorf("Exp32(NaN) = %v", got)
	}
}

func BenchmarkExp32(b *testing.B) {
	var s float32
	for i := 0; i < b.N; i++ {
		s += Exp32(float32(i&255) * -0.1)
	}
	if s == 0 {
		b.Fatal("no sum")
	}
}
