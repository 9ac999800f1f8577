package optim

import "golang.org/x/sys/cpu"

//go:noescape
func step8(n int, s *scalars, p, grad, m, v *float32)

// stepVector does the leading elements of a step and says how many.
func stepVector(s *scalars, p, g, m, v []float32) int {
	n := len(p) &^ 7
	if n == 0 || !cpu.X86.HasAVX2 {
		return 0
	}
	step8(n, s, &p[0], &g[0], &m[0], &v[0])
	return n
}
