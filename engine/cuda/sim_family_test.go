package cuda

import (
	"math"

	"lorad/engine/cuda/device"
)

// heads calls for each head with its place in x and in raw, and the weight of its norm.
func (d *sim) heads(a args, do func(x, raw, w device.Ptr, dim int, eps float32)) error {
	x, ld, wq, wk, raw, ldraw, rows, q, heads, dim, eps := a.ptr(), a.int(), a.ptr(), a.ptr(), a.ptr(), a.int(), a.int(), a.int(), a.int(), a.int(), a.float()
	for r := range rows {
		for h := range heads {
			w := wq
			if h >= q {
				w = wk
			}
			do(x+device.Ptr(2*(r*ld+h*dim)), raw+device.Ptr(2*(r*ldraw+h*dim)), w, dim, eps)
		}
	}
	return nil
}

func rstdOf(x []float32, eps float32) float32 {
	return float32(1 / math.Sqrt(dot(x, x)/float64(len(x))+float64(eps)))
}

func (d *sim) headNorm(_ device.Grid, a args) error {
	return d.heads(a, func(at, raw, w device.Ptr, dim int, eps float32) {
		x, weight := d.load(matrix(at, dim), 1, dim), d.load(matrix(w, dim), 1, dim)
		d.store(matrix(raw, dim), x, dim)
		inv := rstdOf(x, eps)
		for i, v := range x {
			x[i] = weight[i] * widen(round16(v*inv))
		}
		d.store(matrix(at, dim), x, dim)
	})
}

func (d *sim) headNormBackward(_ device.Grid, a args) error {
	return d.heads(a, func(at, raw, w device.Ptr, dim int, eps float32) {
		g, x, weight := d.load(matrix(at, dim), 1, dim), d.load(matrix(raw, dim), 1, dim), d.load(matrix(w, dim), 1, dim)
		for i := range g {
			g[i] *= weight[i]
		}
		inv, mean := rstdOf(x, eps), float32(dot(g, x))/float32(dim)
		for i := range g {
			g[i] = inv*g[i] - x[i]*inv*inv*inv*mean
		}
		d.store(matrix(at, dim), g, dim)
	})
}
