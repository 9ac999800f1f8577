package lora

import (
	"math"

	"lorad/engine/kernel"
)

// Principal is the r largest singular values of a matrix W[out,in], in descending order, and their vectors: W v = sigma u.
type Principal[T kernel.Float] struct {
	Sigma []float64
	U, V  []T // [r,out], [r,in]: a vector is a row
}

const (
	// spare vectors make the wanted ones converge faster: by the ratio of sigma[r+spare] to sigma[r].
	minSpare, maxSpare = 8, 32
	// settledAt is how far W v may be from sigma u, as a share of the largest sigma: a few times the rounding of f32.
	settledAt = 1e-6
	maxRounds = 500
)

// FindPrincipal iterates a random subspace (Halko, Martinsson and Tropp 2011, algorithm 4.4) for so many rounds, or until it has settled if rounds
// is 0. It is what PiSSA (Meng et al. 2024) starts an adapter from; PEFT's pissa_niter_k are k rounds.
//
// Products are ops' own, whose bits do not depend on the machine; everything else is f64 without fused multiply-add and without functions of
// the mathematical library but the square root. So all nodes find the same bits. A decomposition of the whole matrix is not wanted: its time grows
// with the cube of the width, and what is left out here goes to the frozen weight anyway.
func FindPrincipal[T kernel.Float](ops kernel.Ops[T], w []T, out, in, r, rounds int, seed uint64, name string) Principal[T] {
	q := min(r+min(max(r, minSpare), maxSpare), out, in)
	s := subspace[T]{q: q, out: out, in: in, u: make([]T, q*out), v: make([]T, q*in), next: make([]T, q*out), sigma: make([]float64, q)}
	each(NewPhilox(seed^Name(name)), len(s.v), func(i int, word uint32) { s.v[i] = T(2*Uniform(word) - 1) })
	last := rounds
	if rounds == 0 {
		last = maxRounds
	}
	for i := range last + 1 {
		ops.Gemm(false, true, q, out, in, s.v, in, w, in, s.next, out, false)
		if rounds == 0 && i > 0 && s.settled(min(r, q)) {
			break
		}
		s.u, s.next = s.next, s.u
		orthonormalise(s.u, q, out)
		ops.Gemm(false, false, q, in, out, s.u, out, w, in, s.v, in, false)
		s.rotate()
	}
	p := Principal[T]{make([]float64, r), make([]T, r*out), make([]T, r*in)}
	copy(p.Sigma, s.sigma) // a matrix of lower rank has no more
	copy(p.U, s.u)
	copy(p.V, s.v)
	return p
}

// subspace is q candidates: orthonormal rows of u and v, with v sigma = u W.
type subspace[T kernel.Float] struct {
	q, out, in int
	u, v, next []T
	sigma      []float64
}

// settled compares next = W v with sigma u for the first r candidates.
func (s *subspace[T]) settled(r int) bool {
	for i := range r {
		sum := 0.0
		for j, y := range s.next[i*s.out : (i+1)*s.out] {
			d := float64(y) - float64(s.sigma[i]*float64(s.u[i*s.out+j]))
			sum += float64(d * d)
		}
		if math.Sqrt(sum) > settledAt*s.sigma[0] {
			return false
		}
	}
	return true
}

// rotate turns u and v = u W so that the rows of v are orthogonal, the longest first, and scales those to length 1.
func (s *subspace[T]) rotate() {
	gram := make([]float64, s.q*s.q)
	for i := range s.q {
		for j := range i + 1 {
			d := dot(s.v[i*s.in:(i+1)*s.in], s.v[j*s.in:(j+1)*s.in])
			gram[i*s.q+j], gram[j*s.q+i] = d, d
		}
	}
	values, turn := eigen(gram, s.q)
	combine(turn, s.q, s.u, s.out, nil)
	for i, lambda := range values {
		s.sigma[i] = math.Sqrt(max(lambda, 0))
	}
	combine(turn, s.q, s.v, s.in, s.sigma)
}

// combine replaces the q rows of x[q,n] by the combinations that the rows of turn say, each divided by its divisor, if there are any.
func combine[T kernel.Float](turn []float64, q int, x []T, n int, divisor []float64) {
	column := make([]float64, q)
	for j := range n {
		for k := range q {
			column[k] = float64(x[k*n+j])
		}
		for i := range q {
			sum := dot(turn[i*q:(i+1)*q], column)
			if divisor != nil && divisor[i] > 0 {
				sum /= divisor[i]
			}
			x[i*n+j] = T(sum)
		}
	}
}

// orthonormalise makes the q rows of x[q,n] orthonormal, by Gram and Schmidt's method, each row twice. A row that depends on those before
// becomes 0.
func orthonormalise[T kernel.Float](x []T, q, n int) {
	rows := make([]float64, q*n)
	for i, v := range x {
		rows[i] = float64(v)
	}
	for i := range q {
		row := rows[i*n : (i+1)*n]
		before := math.Sqrt(dot(row, row))
		for k := range 2 * i {
			other := rows[k%i*n : (k%i+1)*n]
			c := dot(row, other)
			for j, v := range other {
				row[j] -= float64(c * v)
			}
		}
		scale := 0.0
		if length := math.Sqrt(dot(row, row)); length > 1e-12*before {
			scale = 1 / length
		}
		for j := range row {
			row[j] *= scale
		}
	}
	for i, v := range rows {
		x[i] = T(v)
	}
}

// dot adds in four sums, for speed; always the same four.
func dot[T kernel.Float](a, b []T) float64 {
	var s [4]float64
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s[0] += float64(float64(a[i]) * float64(b[i]))
		s[1] += float64(float64(a[i+1]) * float64(b[i+1]))
		s[2] += float64(float64(a[i+2]) * float64(b[i+2]))
		s[3] += float64(float64(a[i+3]) * float64(b[i+3]))
	}
	for ; i < len(a); i++ {
		s[0] += float64(float64(a[i]) * float64(b[i]))
	}
	return s[0] + s[1] + (s[2] + s[3])
}
