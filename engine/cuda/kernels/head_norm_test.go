package kernels_test

import (
	"fmt"
	"slices"
	"testing"

	"lorad/engine/kernel"
)

// TestHeadNorm holds the norms of the heads of q and k, and their gradients, to those of rows. What lies beside the heads stays.
func TestHeadNorm(t *testing.T) {
	each(t, func(g gpu) {
		for _, c := range []struct{ rows, q, heads, d, threads int }{{3, 2, 3, 64, 32}, {5, 3, 4, 128, 64}, {1, 1, 2, 256, 64}, {2, 4, 8, 64, 256}} {
			what := fmt.Sprintf("%d rows of %d+%d heads of %d", c.rows, c.q, c.heads-c.q, c.d)
			n := c.heads * c.d
			ld, ldraw := n+c.d+8, n+16
			x, dx, wq, wk := g.halves(c.rows*ld), g.halves(c.rows*ld), g.halves(c.d), g.halves(c.d)
			in, raw, blocks := put(g, x), g.room(2*c.rows*ldraw), (c.rows*n/8+c.threads-1)/c.threads
			g.run("head_norm_forward", blocks, c.threads, in, ld, put(g, wq), put(g, wk), raw, ldraw, c.rows, c.q, c.heads, c.d, float32(1e-6))
			grad := put(g, dx)
			g.run("head_norm_backward", blocks, c.threads, grad, ld, put(g, wq), put(g, wk), raw, ldraw, c.rows, c.q, c.heads, c.d, float32(1e-6))
			y, d, kept := get[uint16](g, in, c.rows*ld), get[uint16](g, grad, c.rows*ld), widen(get[uint16](g, raw, c.rows*ldraw))
			for r := range c.rows {
				same(t, what+": kept", kept[r*ldraw:r*ldraw+n], widen(x[r*ld:r*ld+n]))
				if kept[r*ldraw+n] == kept[r*ldraw+n] {
					t.Fatalf("%s: wrote beyond a row that is kept", what)
				}
				same(t, what+": beside", y[r*ld+n:(r+1)*ld], x[r*ld+n:(r+1)*ld])
				same(t, what+": gradient beside", d[r*ld+n:(r+1)*ld], dx[r*ld+n:(r+1)*ld])
				for h := range c.heads {
					w, at := slices.Clone(wq), r*ld+h*c.d
					if h >= c.q {
						w = wk
					}
					_, rstd, want := normalised(x[at:at+c.d], nil, w, 1, c.d, 1e-6)
					relative(t, what, widen(y[at:at+c.d]), want)
					gradient := make([]float64, c.d)
					kernel.NewRef[float64]().RMSNormBackward(1, c.d, gradient, nil, widen(dx[at:at+c.d]), widen(x[at:at+c.d]), widen(w), rstd)
					near(t, what+": gradient", widen(d[at:at+c.d]), gradient, bf16Tolerance)
				}
			}
		}
	})
}
