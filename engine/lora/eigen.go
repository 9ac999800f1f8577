package lora

import (
	"cmp"
	"math"
	"slices"
)

// sweeps bounds Jacobi's method; it converges quadratically, in six to ten.
const sweeps = 40

// eigen finds the eigenvalues of a symmetric matrix a[n,n], in descending order, and their vectors as rows, by Jacobi's cyclic method (Golub and Van
// Loan, 8.5). a is overwritten. No product is fused with a sum, so the bits are the same on every machine.
func eigen(a []float64, n int) (values, vectors []float64) {
	rows := make([]float64, n*n)
	for i := range n {
		rows[i*n+i] = 1
	}
	for range sweeps {
		turned := false
		for p := range n {
			for q := p + 1; q < n; q++ {
				turned = annihilate(a, rows, n, p, q) || turned
			}
		}
		if !turned {
			break
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(a[j*n+j], a[i*n+i]) })
	for _, i := range order {
		values, vectors = append(values, a[i*n+i]), append(vectors, rows[i*n:(i+1)*n]...)
	}
	return values, vectors
}

// annihilate makes a[p,q] zero by a rotation, unless it is too small to matter.
func annihilate(a, rows []float64, n, p, q int) bool {
	off, dp, dq := a[p*n+q], a[p*n+p], a[q*n+q]
	if math.Abs(off) <= 1e-16*math.Sqrt(math.Abs(dp)*math.Abs(dq)) {
		return false
	}
	tau := (dq - dp) / (2 * off)
	t := 1 / (math.Abs(tau) + math.Sqrt(1+float64(tau*tau)))
	if tau < 0 {
		t = -t
	}
	c := 1 / math.Sqrt(1+float64(t*t))
	s := float64(t * c)
	for k := range n { // columns, then rows
		a[k*n+p], a[k*n+q] = rotated(a[k*n+p], a[k*n+q], c, s)
	}
	for k := range n {
		a[p*n+k], a[q*n+k] = rotated(a[p*n+k], a[q*n+k], c, s)
		rows[p*n+k], rows[q*n+k] = rotated(rows[p*n+k], rows[q*n+k], c, s)
	}
	return true
}

func rotated(x, y, c, s float64) (float64, float64) {
	return float64(c*x) - float64(s*y), float64(s*x) + float64(c*y)
}
