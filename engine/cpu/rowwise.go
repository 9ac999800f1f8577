package cpu

import "math"

// The row-wise operations of kernel.Ops, as in kernel.Ref, on the vectors of vector.go.

// Scale multiplies x by a.
func (o *Ops) Scale(a float32, x []float32) { o.simd.scale(x, a) }

// Axpy adds a*x to y.
func (o *Ops) Axpy(a float32, x, y []float32) { o.simd.axpy(a, x, y) }

// RMSNorm follows Hugging Face: normalise, then multiply by the weight.
func (o *Ops) RMSNorm(rows, n int, y, inv, x, w []float32, eps float32) {
	w = w[:n]
	for i := range rows {
		xr := x[i*n : i*n+n]
		s := float32(1 / math.Sqrt(float64(o.simd.dot(xr, xr)/float32(n)+eps)))
		inv[i] = s
		o.simd.norm(y[i*n:i*n+n], xr, w, s)
	}
}

// RMSNormBackward adds the gradients by x and, unless dw is nil, by w.
func (o *Ops) RMSNormBackward(rows, n int, dx, dw, dy, x, w, inv []float32) {
	w = w[:n]
	for i := range rows {
		xr, gr, s := x[i*n:i*n+n], dy[i*n:i*n+n], inv[i]
		f := o.simd.triple(gr, w, xr) * s * s * s / float32(n)
		o.simd.normBackward(dx[i*n:i*n+n], gr, xr, w, s, f)
		if dw != nil {
			o.simd.normWeight(dw[:n], gr, xr, s)
		}
	}
}

// Rope rotates pairs (j, j+d/2), Hugging Face's rotate_half.
func (o *Ops) Rope(rows, d int, x []float32, ld int, cos, sin []float32, inverse bool) {
	sign := float32(1)
	if inverse {
		sign = -1
	}
	o.simd.rope(rows, d/2, x, ld, cos, sin, sign)
}

// CausalSoftmax normalises each row over the columns it sees.
func (o *Ops) CausalSoftmax(rows, cols, first int, s []float32, ld int, scale float32, lse []float32) {
	for i := range rows {
		row := s[i*ld : i*ld+cols]
		seen := row[:first+i+1]
		top := o.simd.max(seen)
		var lanes [8]float32
		o.simd.exp(seen, seen, top, scale, 0, &lanes)
		sum := reduce(&lanes)
		o.simd.scale(seen, 1/sum)
		clear(row[first+i+1:])
		lse[i] = float32(scale*top) + float32(math.Log(float64(sum)))
	}
}

// CausalSoftmaxBackward recomputes the probabilities from the scores and lse.
func (o *Ops) CausalSoftmaxBackward(rows, cols, first int, s, dp []float32, ld int, scale float32, lse []float32) {
	for i := range rows {
		row, drow := s[i*ld:i*ld+cols], dp[i*ld:i*ld+cols]
		n := first + i + 1
		var lanes [8]float32
		o.simd.exp(row[:n], row[:n], 0, scale, lse[i], &lanes)
		o.simd.softmaxBackward(drow[:n], row[:n], scale, o.simd.dot(row[:n], drow[:n]))
		clear(row[n:])
		clear(drow[n:])
	}
}

// SwiGLU writes silu(gate) * up.
func (o *Ops) SwiGLU(h, gate, up []float32) { o.simd.swiglu(h, gate, up) }

// SwiGLUBackward writes the gradients by gate and up.
func (o *Ops) SwiGLUBackward(dgate, dup, dh, gate, up []float32) {
	o.simd.swigluBackward(dgate, dup, dh, gate, up)
}

// CrossEntropy adds the exponentials in float32 over runs of chunk columns, and those sums in float64.
func (o *Ops) CrossEntropy(rows, n int, x []float32, labels []int32, loss []float64, scale float32, grad bool) {
	for i := range rows {
		row := x[i*n : i*n+n]
		top, target := o.simd.max(row), row[labels[i]]
		sum := o.sumExp(row, top, grad)
		loss[i] = math.Log(sum) - (float64(target) - float64(top))
		if grad {
			o.simd.scale(row, float32(float64(scale)/sum))
			row[labels[i]] -= scale
		}
	}
}

// sumExp is the sum of exp(row-top), which replaces row if keep.
func (o *Ops) sumExp(row []float32, top float32, keep bool) (sum float64) {
	const chunk = 256
	var aside [chunk]float32
	for j := 0; j < len(row); j += chunk {
		src := row[j:min(j+chunk, len(row))]
		dst := aside[:]
		if keep {
			dst = src
		}
		var lanes [8]float32
		o.simd.exp(dst, src, top, 1, 0, &lanes)
		sum += float64(reduce(&lanes))
	}
	return sum
}
