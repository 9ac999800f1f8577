package lora

import (
	"math"
	"testing"

	"lorad/engine/kernel"
)

// known is a matrix [out,in] with the singular values 8, 4, 2, 1, ..., whose vectors come from random ones.
func known(out, in int) (w []float64, u, v []float64) {
	n := min(out, in)
	u, v = make([]float64, n*out), make([]float64, n*in)
	each(NewPhilox(1), len(u), func(i int, x uint32) { u[i] = Uniform(x) - 0.5 })
	each(NewPhilox(2), len(v), func(i int, x uint32) { v[i] = Uniform(x) - 0.5 })
	orthonormalise(u, n, out)
	orthonormalise(v, n, in)
	w = make([]float64, out*in)
	for k := range n {
		sigma := math.Ldexp(8, -k)
		for i := range out {
			for j := range in {
				w[i*in+j] += sigma * u[k*out+i] * v[k*in+j]
			}
		}
	}
	return w, u, v
}

func TestPrincipalFindsWhatTheMatrixWasMadeOf(t *testing.T) {
	for _, shape := range [][2]int{{40, 23}, {23, 40}, {5, 9}} {
		out, in, r := shape[0], shape[1], 4
		w, u, v := known(out, in)
		for _, rounds := range []int{0, 6} {
			p := FindPrincipal(kernel.NewRef[float64](), w, out, in, r, rounds, 7, "w")
			for k := range r {
				if want := math.Ldexp(8, -k); math.Abs(p.Sigma[k]-want) > 1e-9*want {
					t.Errorf("%v, %d rounds: singular value %d is %v, want %v", shape, rounds, k, p.Sigma[k], want)
				}
				both := dot(p.U[k*out:(k+1)*out], u[k*out:(k+1)*out]) * dot(p.V[k*in:(k+1)*in], v[k*in:(k+1)*in])
				if math.Abs(both-1) > 1e-8 {
					t.Errorf("%v, %d rounds: vectors %d agree by %v", shape, rounds, k, both)
				}
			}
		}
	}
}

// A matrix of rank 1, and one of zeros, have fewer components than are asked for: the rest is zero, and nothing is NaN.
func TestPrincipalOfLowRank(t *testing.T) {
	w := make([]float32, 12*10)
	for i := range 12 {
		for j := range 10 {
			w[i*10+j] = float32(i+1) * float32(j-4)
		}
	}
	for _, m := range [][]float32{w, make([]float32, 120)} {
		p := FindPrincipal(kernel.NewRef[float32](), m, 12, 10, 3, 0, 7, "w")
		for i := range 12 {
			for j := range 10 {
				sum := 0.0
				for k := range 3 {
					sum += p.Sigma[k] * float64(p.U[k*12+i]) * float64(p.V[k*10+j])
				}
				if math.IsNaN(sum) || math.Abs(sum-float64(m[i*10+j])) > 1e-4 {
					t.Fatalf("element %d, %d: %v, want %v", i, j, sum, m[i*10+j])
				}
			}
		}
	}
}
