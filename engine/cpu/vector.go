package cpu

import "math"

// simd says which assembly may be used: none, that of vector_amd64.s, which is 256 bits wide, or also that of vector_avx512_amd64.s. The
// latter has what computes exponentials: on the machines measured, 512 bits gain nothing where every operand comes from memory.
//
// Each method hands whole groups of eight to the assembly and does the rest in Go, with the same operations in the same order
// and each product rounded by itself: with scalar the Go loop does everything, and is the twin that the assembly is tested
// against bit for bit. Sums are kept in eight lanes, element i in lane i mod 8.
type simd uint8

const (
	scalar simd = iota
	eight
	sixteen
)

// whole is how many of n elements go to the assembly.
func (v simd) whole(n int) int {
	if v == scalar {
		return 0
	}
	return n &^ 7
}

// reduce adds up lanes.
func reduce(l *[8]float32) float32 {
	return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

// exp writes dst = exp((src-sub)*scale - off) and adds it to lanes. dst may be src.
func (v simd) exp(dst, src []float32, sub, scale, off float32, lanes *[8]float32) {
	if v == sixteen && len(src) > 0 {
		exp16(len(src), &dst[:len(src)][0], &src[0], sub, scale, off, lanes)
		return
	}
	n := v.whole(len(src))
	if n > 0 {
		exp8(n, &dst[0], &src[0], sub, scale, off, lanes)
	}
	if v != scalar && n < len(src) { // one more group, filled up: scalar exponentials are slow
		var tail, none [8]float32
		copy(tail[:], src[n:])
		exp8(8, &tail[0], &tail[0], sub, scale, off, &none)
		for i := range dst[n:len(src)] {
			dst[n+i] = tail[i]
			lanes[i] += tail[i]
		}
		return
	}
	for i := n; i < len(src); i++ {
		e := exp32(float32((src[i]-sub)*scale) - off)
		dst[i] = e
		lanes[i&7] += e
	}
}

// max is the largest element, -Inf of none; NaN is passed over.
func (v simd) max(x []float32) float32 {
	if v == sixteen && len(x) > 0 {
		return max16(len(x), &x[0])
	}
	low := float32(math.Inf(-1))
	lanes := [8]float32{low, low, low, low, low, low, low, low}
	n := v.whole(len(x))
	if n > 0 {
		max8(n, &x[0], &lanes)
	}
	for _, e := range lanes {
		if e > low {
			low = e
		}
	}
	for _, e := range x[n:] {
		if e > low {
			low = e
		}
	}
	return low
}

// scale multiplies x by f.
func (v simd) scale(x []float32, f float32) {
	n := v.whole(len(x))
	if n > 0 {
		scale8(n, &x[0], f)
	}
	for i := n; i < len(x); i++ {
		x[i] *= f
	}
}

// dot is the sum of x*y.
func (v simd) dot(x, y []float32) float32 {
	var lanes [8]float32
	y = y[:len(x)]
	n := v.whole(len(x))
	if n > 0 {
		dot8(n, &x[0], &y[0], &lanes)
	}
	for i := n; i < len(x); i++ {
		lanes[i&7] += float32(x[i] * y[i])
	}
	return reduce(&lanes)
}

// dots writes (or adds to) out[j] the sum of x*y[j*ld:], as dot does, four at a time.
func (v simd) dots(out, x, y []float32, ld int, acc bool) {
	k, j := len(x), 0
	for n := v.whole(k); n > 0 && j+4 <= len(out); j += 4 {
		var lanes [4][8]float32
		dots8(n, &x[0], &y[j*ld], ld, &lanes)
		for r := range lanes {
			for i := n; i < k; i++ {
				lanes[r][i&7] += float32(x[i] * y[(j+r)*ld+i])
			}
			put(&out[j+r], reduce(&lanes[r]), acc)
		}
	}
	for ; j < len(out); j++ {
		put(&out[j], v.dot(x, y[j*ld:j*ld+k]), acc)
	}
}

func put(c *float32, s float32, acc bool) {
	if acc {
		s += *c
	}
	*c = s
}

// triple is the sum of x*y*z.
func (v simd) triple(x, y, z []float32) float32 {
	var lanes [8]float32
	y, z = y[:len(x)], z[:len(x)]
	n := v.whole(len(x))
	if n > 0 {
		triple8(n, &x[0], &y[0], &z[0], &lanes)
	}
	for i := n; i < len(x); i++ {
		lanes[i&7] += float32(float32(x[i]*y[i]) * z[i])
	}
	return reduce(&lanes)
}

// axpy adds a*x to y.
func (v simd) axpy(a float32, x, y []float32) {
	y = y[:len(x)]
	n := v.whole(len(x))
	if n > 0 {
		axpy8(n, a, &x[0], &y[0])
	}
	for i := n; i < len(x); i++ {
		y[i] += float32(a * x[i])
	}
}

// norm writes y = w * (x*s).
func (v simd) norm(y, x, w []float32, s float32) {
	y, w = y[:len(x)], w[:len(x)]
	n := v.whole(len(x))
	if n > 0 {
		norm8(n, &y[0], &x[0], &w[0], s)
	}
	for i := n; i < len(x); i++ {
		y[i] = float32(x[i]*s) * w[i]
	}
}

// normBackward adds s*(dy*w) - x*f to dx.
func (v simd) normBackward(dx, dy, x, w []float32, s, f float32) {
	dx, dy, w = dx[:len(x)], dy[:len(x)], w[:len(x)]
	n := v.whole(len(x))
	if n > 0 {
		normBackward8(n, &dx[0], &dy[0], &x[0], &w[0], s, f)
	}
	for i := n; i < len(x); i++ {
		dx[i] += float32(s*float32(dy[i]*w[i])) - float32(x[i]*f)
	}
}

// normWeight adds dy*(x*s) to dw.
func (v simd) normWeight(dw, dy, x []float32, s float32) {
	dw, dy = dw[:len(x)], dy[:len(x)]
	n := v.whole(len(x))
	if n > 0 {
		normWeight8(n, &dw[0], &dy[0], &x[0], s)
	}
	for i := n; i < len(x); i++ {
		dw[i] += float32(dy[i] * float32(x[i]*s))
	}
}

// softmaxBackward turns ds, which holds the gradient by p, into scale*p*(ds-sum).
func (v simd) softmaxBackward(ds, p []float32, scale, sum float32) {
	ds = ds[:len(p)]
	n := v.whole(len(p))
	if n > 0 {
		softmaxBackward8(n, &ds[0], &p[0], scale, sum)
	}
	for i := n; i < len(p); i++ {
		ds[i] = float32(scale*p[i]) * (ds[i] - sum)
	}
}

// swiglu writes h = gate/(1+exp(-gate)) * up.
func (v simd) swiglu(h, gate, up []float32) {
	h, up = h[:len(gate)], up[:len(gate)]
	if v == sixteen && len(gate) > 0 {
		swiglu16(len(gate), &h[0], &gate[0], &up[0])
		return
	}
	n := v.whole(len(gate))
	if n > 0 {
		swiglu8(n, &h[0], &gate[0], &up[0])
	}
	for i := n; i < len(gate); i++ {
		h[i] = gate[i] / (1 + exp32(0-gate[i])) * up[i]
	}
}

// swigluBackward: with s = 1/(1+exp(-gate)), dgate = dh*up * s*(1+gate*(1-s)) and dup = dh * gate*s.
func (v simd) swigluBackward(dgate, dup, dh, gate, up []float32) {
	k := len(gate)
	dgate, dup, dh, up = dgate[:k], dup[:k], dh[:k], up[:k]
	if v == sixteen && k > 0 {
		swigluBackward16(k, &dgate[0], &dup[0], &dh[0], &gate[0], &up[0])
		return
	}
	n := v.whole(k)
	if n > 0 {
		swigluBackward8(n, &dgate[0], &dup[0], &dh[0], &gate[0], &up[0])
	}
	for i := n; i < k; i++ {
		g, d := gate[i], dh[i]
		s := 1 / (1 + exp32(0-g))
		slope := float32(s * (1 + float32(g*(1-s))))
		dgate[i] = float32(d*up[i]) * slope
		dup[i] = d * float32(g*s)
	}
}

// rope turns, in rows of x that are ld apart, the pairs (j, j+h) by the angles whose cosine and sine are given, [rows,h]; sign -1 turns back. All rows are
// one call, for they are short.
func (v simd) rope(rows, h int, x []float32, ld int, cos, sin []float32, sign float32) {
	if v != scalar && h&7 == 0 && rows > 0 && h > 0 {
		_, _, _ = x[(rows-1)*ld+2*h-1], cos[rows*h-1], sin[rows*h-1]
		rope8(rows, h, &x[0], ld, &cos[0], &sin[0], sign)
		return
	}
	for i := range rows * h {
		at := i/h*ld + i%h
		a, b, c, s := x[at], x[at+h], cos[i], sign*sin[i]
		x[at] = float32(a*c) - float32(b*s)
		x[at+h] = float32(b*c) + float32(a*s)
	}
}

// exp32 is kernel.Exp32 with every product rounded by itself, on every machine: within 2 units in the last place, 0 below the
// smallest normal number, +Inf above the largest.
func exp32(x float32) float32 {
	if x <= -87.33654 {
		return 0
	}
	if x > 88.72283 {
		return float32(math.Inf(1))
	}
	const magic = 12582912 // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits
	m := float32(x*1.44269504) + magic
	k := m - magic
	r := x - float32(k*0.693359375)
	r -= float32(k * -2.12194440e-4)
	p := float32(1.0 / 5040)
	for _, c := range [...]float32{1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1, 1} {
		p = float32(p*r) + c
	}
	n := int32(math.Float32bits(m) - 0x4b400000)
	h := n >> 1 // 2^n in two factors, so that n = 128 does not overflow
	return p * math.Float32frombits(uint32(127+h)<<23) * math.Float32frombits(uint32(127+n-h)<<23)
}
