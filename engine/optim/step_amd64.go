package optim

import "golang.org/x/sys/cpu"

//go:noescape
func step8(n int, s *scalars, p, grad, m, v *float32)

//go:noescape
func squares4(n int, sums *[4]float64, grad *float32)

//go:noescape
func scale8(n int, grad *float32, f float32)

// squaresVector adds the squares of the leading elements to the sums of GlobalNorm and says how many.
func squaresVector(s *[4]float64, g []float32) int {
	if len(g) == 0 || !cpu.X86.HasAVX2 {
		return 0
	}
	squares4(len(g), s, &g[0])
	return len(g)
}

// scaleVector multiplies the leading elements and says how many.
func scaleVector(g []float32, f float32) int {
	n := len(g) &^ 7
	if n == 0 || !cpu.X86.HasAVX2 {
		return 0
	}
	scale8(n, &g[0], f)
	return n
}

//go:noescape
func stepEight(n int, s *scalars8, p, grad, m, v *float32)

// stepVector8 is stepVector for moments in 8 bits.
func stepVector8(s *scalars8, p, g, m, v []float32) int {
	n := len(p) &^ 7
	if n == 0 || !cpu.X86.HasAVX2 {
		return 0
	}
	stepEight(n, s, &p[0], &g[0], &m[0], &v[0])
	return n
}

// stepVector does the leading elements of a step and says how many.
func stepVector(s *scalars, p, g, m, v []float32) int {
	n := len(p) &^ 7
	if n == 0 || !cpu.X86.HasAVX2 {
		return 0
	}
	step8(n, s, &p[0], &g[0], &m[0], &v[0])
	return n
}
