package optim

import (
	"math"
	"testing"
)

// TestExponents: a constant gradient has, at every step and whatever its size, the exponent of its own magnitude or, where the
// correction is rounded down to a power of two, one more; a parameter without a gradient has none.
func TestExponents(t *testing.T) {
	parts := []Part{{Len: 3, Rate: 1}, {Len: 5000, Rate: 1}}
	rule := AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}
	for name, o := range map[string]Optimizer{"plain": NewPlain(rule, parts), "8 bit": NewEightBit(rule, parts)} {
		p, g, e := make([]float32, 5003), make([]float32, 5003), make([]int8, 5003)
		o.Exponents(e, 0)
		if e[0] != NoExponent || e[5002] != NoExponent {
			t.Fatalf("%s: exponents %d, %d before the first step", name, e[0], e[5002])
		}
		for i := range g {
			g[i] = float32(math.Ldexp(1.5, -10-i%3)) // within what 8 bits hold
		}
		g[2], g[4999] = 0, 0
		for step := 1; step <= 300; step++ {
			o.Step(p, g, 1e-3, step)
			o.Exponents(e, step)
			for _, i := range []int{0, 1, 3, 5000, 5001} {
				if d := int(e[i]) - (-10 - i%3); d < 0 || d > 1 {
					t.Fatalf("%s: step %d: gradient %g has the exponent %d", name, step, g[i], e[i])
				}
			}
			if e[2] != NoExponent || e[4999] != NoExponent {
				t.Fatalf("%s: step %d: zeros have the exponents %d, %d", name, step, e[2], e[4999])
			}
		}
	}
}
