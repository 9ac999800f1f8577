package kernels_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"lorad/engine/cuda/device"
	"lorad/engine/kernel"
)

// bf16Tolerance is half a unit in the last place of bf16, relative to the smallest number of a binade, and what sums in f32 add to it.
const bf16Tolerance = 0x1.01p-8

// normalised is the reference: the sum rounded to bf16, 1/rms of it, and the output, which is rounded within (to bf16) as transformers does.
func normalised(x, delta, w []uint16, rows, n int, eps float64) (resid []uint16, rstd, y []float64) {
	resid = slices.Clone(x)
	for i := range resid {
		if delta != nil {
			resid[i] = kernel.RoundBF16(kernel.WidenBF16(x[i]) + kernel.WidenBF16(delta[i]))
		}
	}
	s, scale := widen(resid), widen(w)
	y = make([]float64, rows*n)
	for r := range rows {
		sum := 0.0
		for _, v := range s[r*n : (r+1)*n] {
			sum += v * v
		}
		rstd = append(rstd, 1/math.Sqrt(sum/float64(n)+eps))
		for i := range n {
			y[r*n+i] = scale[i] * s[r*n+i] * rstd[r]
		}
	}
	return resid, rstd, y
}

func TestRMSNorm(t *testing.T) {
	each(t, func(g gpu) {
		for _, c := range []struct{ rows, n, threads int }{{1, 8, 32}, {3, 72, 32}, {2, 2048, 64}, {2, 520, 256}} {
			for _, sum := range []bool{false, true} {
				what := fmt.Sprintf("%d rows of %d, with delta: %v", c.rows, c.n, sum)
				ldy := c.n + 16
				x, w := g.halves(c.rows*c.n), g.halves(c.n)
				var delta []uint16
				var at, to device.Ptr
				in := put(g, x)
				if sum {
					delta = g.halves(c.rows * c.n)
					at, to = put(g, delta), in // in place
				}
				resid, rstd, y := normalised(x, delta, w, c.rows, c.n, 1e-5)
				out, inverse := g.room(2*c.rows*ldy), g.room(4*c.rows)
				g.run("rmsnorm_forward", c.rows, c.threads, in, at, put(g, w), to, out, inverse, c.rows, c.n, ldy, float32(1e-5))
				same(t, what+": sum", get[uint16](g, in, c.rows*c.n), resid)
				near(t, what+": rstd", get[float32](g, inverse, c.rows), rstd, 1e-6)
				got := widen(get[uint16](g, out, c.rows*ldy))
				for r := range c.rows {
					relative(t, what, got[r*ldy:r*ldy+c.n], y[r*c.n:(r+1)*c.n])
					if gap := got[r*ldy+c.n]; gap == gap {
						t.Fatalf("%s: wrote %g beyond a row", what, gap)
					}
				}
			}
		}
	})
}

// relative allows two roundings to bf16 of each element.
func relative(t testing.TB, what string, got, want []float64) {
	t.Helper()
	for i, w := range want {
		if d := math.Abs(got[i] - w); !(d <= 2*bf16Tolerance*math.Abs(w)) {
			t.Fatalf("%s: element %d is %g, want %g", what, i, got[i], w)
		}
	}
}

func TestRMSNormBackward(t *testing.T) {
	each(t, func(g gpu) {
		for _, c := range []struct{ rows, n, threads int }{{1, 8, 32}, {3, 72, 32}, {2, 2048, 64}} {
			lddy, lddx := c.n+8, c.n+16
			dy, resid, w, dres := g.halves(c.rows*lddy), g.halves(c.rows*c.n), g.halves(c.n), g.halves(c.rows*lddx)
			_, rstd, _ := normalised(resid, nil, w, c.rows, c.n, 1e-5)
			inverse := make([]float32, c.rows)
			want, dense, sum := make([]float64, c.rows*c.n), make([]float64, 0, c.rows*c.n), widen(inner(dres, c.rows, c.n, lddx))
			for r := range c.rows {
				inverse[r] = float32(rstd[r])
				dense = append(dense, widen(dy[r*lddy:r*lddy+c.n])...)
			}
			kernel.NewRef[float64]().RMSNormBackward(c.rows, c.n, want, nil, dense, widen(resid), widen(w), rstd)
			for i := range sum {
				sum[i] += want[i]
			}
			to := put(g, dres)
			for _, add := range []bool{true, false} { // in place, and then without
				at := to
				if !add {
					at, sum = 0, want
				}
				g.run("rmsnorm_backward", c.rows, c.threads, put(g, dy), lddy, put(g, resid), put(g, w), put(g, inverse), at, to, lddx, c.rows, c.n)
				got := get[uint16](g, to, c.rows*lddx)
				near(t, fmt.Sprintf("%d rows of %d, adding: %v", c.rows, c.n, add), widen(inner(got, c.rows, c.n, lddx)), sum, bf16Tolerance)
				same(t, "beyond a row", got[c.n:lddx], dres[c.n:lddx])
			}
		}
	})
}
