package kernel

import (
	"math"
	"unsafe"
)

// Ref implements Ops in plain Go, serially. Loops are arranged so that the compiler's code is tolerable (unit strides, four
// independent sums), but nothing here is clever: it is the definition others are compared with.
type Ref[T Float] struct{}

// NewRef returns the reference operations.
func NewRef[T Float]() Ops[T] { return Ref[T]{} }

// Parallel runs f(0) .. f(n-1) in order.
func (Ref[T]) Parallel(n int, f func(i int)) {
	for i := range n {
		f(i)
	}
}

// Gemm is Gemm1: the reference has one thread.
func (r Ref[T]) Gemm(transA, transB bool, m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int, acc bool) {
	r.Gemm1(transA, transB, m, n, k, a, lda, b, ldb, c, ldc, acc)
}

// Gemm1 adds rank-1 updates row by row, except for A * B^T, where rows of both are contiguous and a dot product is better.
func (Ref[T]) Gemm1(transA, transB bool, m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int, acc bool) {
	as, ak := lda, 1 // steps along m and along k
	if transA {
		as, ak = 1, lda
	}
	for i := range m {
		row := c[i*ldc : i*ldc+n]
		if !acc {
			clear(row)
		}
		switch {
		case k == 0:
		case transB && !transA:
			dotRow(row, a[i*lda:i*lda+k], b, ldb)
		case transB:
			for j := range row {
				row[j] += dotStrided(k, a[i:], ak, b[j*ldb:])
			}
		default:
			for p := range k {
				axpy(a[i*as+p*ak], b[p*ldb:p*ldb+n], row)
			}
		}
	}
}

func dotRow[T Float](row, a, b []T, ldb int) {
	for j := range row {
		row[j] += dot(a, b[j*ldb:j*ldb+len(a)])
	}
}

func dotStrided[T Float](k int, a []T, ak int, b []T) T {
	var s T
	for p := range k {
		s += a[p*ak] * b[p]
	}
	return s
}

func dot[T Float](a, b []T) T {
	b = b[:len(a)]
	var s0, s1, s2, s3 T
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

func axpy[T Float](a T, x, y []T) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += a * v
	}
}

// Scale multiplies x by a.
func (Ref[T]) Scale(a T, x []T) {
	for i := range x {
		x[i] *= a
	}
}

// Axpy adds a*x to y.
func (Ref[T]) Axpy(a T, x, y []T) { axpy(a, x, y) }

// RMSNorm follows Hugging Face: normalise, then multiply by the weight.
func (Ref[T]) RMSNorm(rows, n int, y, inv, x, w []T, eps T) {
	w = w[:n]
	for i := range rows {
		xr, yr := x[i*n:i*n+n], y[i*n:i*n+n]
		s := T(1 / math.Sqrt(float64(dot(xr, xr)/T(n)+eps)))
		inv[i] = s
		for j, v := range xr {
			yr[j] = w[j] * (v * s)
		}
	}
}

// RMSNormBackward adds the gradients by x and, unless dw is nil, by w.
func (Ref[T]) RMSNormBackward(rows, n int, dx, dw, dy, x, w, inv []T) {
	w = w[:n]
	for i := range rows {
		xr, gr, dr, s := x[i*n:i*n+n], dy[i*n:i*n+n], dx[i*n:i*n+n], inv[i]
		var sum T
		for j, v := range xr {
			sum += gr[j] * w[j] * v
		}
		f := sum * s * s * s / T(n)
		for j, v := range xr {
			dr[j] += s*(gr[j]*w[j]) - v*f
		}
		if dw != nil {
			for j, v := range xr {
				dw[j] += gr[j] * (v * s)
			}
		}
	}
}

// Rope rotates pairs (j, j+d/2), Hugging Face's rotate_half.
func (Ref[T]) Rope(rows, d int, x []T, ld int, cos, sin []T, inverse bool) {
	h := d / 2
	sign := T(1)
	if inverse {
		sign = -1
	}
	for i := range rows {
		lo, hi := x[i*ld:i*ld+h], x[i*ld+h:i*ld+d]
		c, s := cos[i*h:i*h+h], sin[i*h:i*h+h]
		for j, a := range lo {
			b, sn := hi[j], sign*s[j]
			lo[j] = a*c[j] - b*sn
			hi[j] = b*c[j] + a*sn
		}
	}
}

// CausalSoftmax normalises each row over the columns it sees.
func (Ref[T]) CausalSoftmax(rows, cols, first int, s []T, ld int, scale T, lse []T) {
	for i := range rows {
		row := s[i*ld : i*ld+cols]
		seen := row[:first+i+1]
		top := maximum(seen)
		var sum T
		for j, v := range seen {
			e := Exp(scale * (v - top))
			seen[j] = e
			sum += e
		}
		f := 1 / sum
		for j := range seen {
			seen[j] *= f
		}
		clear(row[first+i+1:])
		lse[i] = scale*top + T(math.Log(float64(sum)))
	}
}

// CausalSoftmaxBackward recomputes the probabilities from the scores and lse instead of having kept them.
func (Ref[T]) CausalSoftmaxBackward(rows, cols, first int, s, dp []T, ld int, scale T, lse []T) {
	for i := range rows {
		row, drow := s[i*ld:i*ld+cols], dp[i*ld:i*ld+cols]
		n := first + i + 1
		seen, dseen := row[:n], drow[:n]
		var sum T
		for j, v := range seen {
			p := Exp(scale*v - lse[i])
			seen[j] = p
			sum += p * dseen[j]
		}
		for j, p := range seen {
			dseen[j] = scale * p * (dseen[j] - sum)
		}
		clear(row[n:])
		clear(drow[n:])
	}
}

// SwiGLU writes silu(gate) * up.
func (Ref[T]) SwiGLU(h, gate, up []T) {
	h, up = h[:len(gate)], up[:len(gate)]
	for i, g := range gate {
		h[i] = g / (1 + Exp(-g)) * up[i]
	}
}

// SwiGLUBackward: d silu(g) = s*(1 + g*(1-s)) with s = sigmoid(g).
func (Ref[T]) SwiGLUBackward(dgate, dup, dh, gate, up []T) {
	n := len(gate)
	dgate, dup, dh, up = dgate[:n], dup[:n], dh[:n], up[:n]
	for i, g := range gate {
		s := 1 / (1 + Exp(-g))
		d := dh[i]
		dgate[i] = d * up[i] * (s * (1 + g*(1-s)))
		dup[i] = d * (g * s)
	}
}

// GELU in its tanh form is x*sigmoid(2z) with z = geluSlope*(x + geluCube*x^3), for (1 + tanh z)/2 = sigmoid(2z).
const (
	geluSlope = 0.7978845608028654 // sqrt(2/pi)
	geluCube  = 0.044715
)

// GeGLU writes gelu(gate) * up.
func (Ref[T]) GeGLU(h, gate, up []T) {
	h, up = h[:len(gate)], up[:len(gate)]
	for i, x := range gate {
		h[i] = x / (1 + Exp(-2*geluSlope*(x+geluCube*(x*x*x)))) * up[i]
	}
}

// GeGLUBackward: d gelu(x) = s + x*s*(1-s)*2z' with s = sigmoid(2z).
func (Ref[T]) GeGLUBackward(dgate, dup, dh, gate, up []T) {
	n := len(gate)
	dgate, dup, dh, up = dgate[:n], dup[:n], dh[:n], up[:n]
	for i, x := range gate {
		s := 1 / (1 + Exp(-2*geluSlope*(x+geluCube*(x*x*x))))
		d, slope := dh[i], 2*geluSlope*(1+3*geluCube*(x*x))
		dgate[i] = d * up[i] * (s + x*s*(1-s)*slope)
		dup[i] = d * (x * s)
	}
}

// CrossEntropy sums the exponentials in float64, so the loss is as good as the logits.
func (Ref[T]) CrossEntropy(rows, n int, x []T, labels []int32, loss []float64, scale T, grad bool) {
	for i := range rows {
		row := x[i*n : i*n+n]
		top := maximum(row)
		target := row[labels[i]]
		var sum float64
		for j, v := range row {
			e := Exp(v - top)
			sum += float64(e)
			if grad {
				row[j] = e
			}
		}
		loss[i] = math.Log(sum) - (float64(target) - float64(top))
		if grad {
			f := T(float64(scale) / sum)
			for j := range row {
				row[j] *= f
			}
			row[labels[i]] -= scale
		}
	}
}

func maximum[T Float](x []T) T {
	m := x[0]
	for _, v := range x[1:] {
		if v > m {
			m = v
		}
	}
	return m
}

// Exp is e^x: math.Exp in float64, Exp32 in float32.
func Exp[T Float](x T) T {
	if sizeOf[T]() == 4 { // folded at compile time: each width is its own instance
		return T(Exp32(float32(x)))
	}
	return T(math.Exp(float64(x)))
}

// sizeOf is the size of a T in bytes.
func sizeOf[T Float]() int { return int(unsafe.Sizeof(T(0))) }

// Exp32 is e^x in float32 arithmetic, within 2 units in the last place. Results below the smallest normal number are 0;
// +Inf above 88.72; NaN stays NaN. x = k*ln2 + r with |r| <= ln2/2, e^r by its Taylor polynomial of degree 7 (Cody and Waite's split of ln2 keeps r exact).
func Exp32(x float32) float32 {
	if !(x > -87.33654) { // NaN comes here too
		if x != x {
			return x
		}
		return 0
	}
	if x > 88.72283 {
		return float32(math.Inf(1))
	}
	const magic = 3 << 22 // adding and subtracting it rounds to an integer
	k := float32(x*1.44269504) + magic
	bits := math.Float32bits(k)
	k -= magic
	r := x - float32(k*0.693359375)
	r -= float32(k * -2.12194440e-4)
	p := float32(1.0/5040)*r + 1.0/720
	p = float32(p*r) + 1.0/120
	p = float32(p*r) + 1.0/24
	p = float32(p*r) + 1.0/6
	p = float32(p*r) + 0.5
	p = float32(p*r) + 1
	p = float32(p*r) + 1
	// Adding magic left the integer in the low bits; 2^k is split in two so that k = 128 does not overflow.
	n := int32(bits - 0x4b400000)
	h := n >> 1
	return p * math.Float32frombits(uint32(127+h)<<23) * math.Float32frombits(uint32(127+n-h)<<23)
}
