// Package quant holds the number formats of bitsandbytes: NF4, four bits a weight in blocks that share a scale, and 8-bit codes of a
// dynamic map, in which NF4's scales (double quantisation) and the moments of 8-bit AdamW (package optim) are kept.
//
// The bits are those of bitsandbytes' CUDA kernels, so a folder that it quantised is the folder that lorad quantises: the same codes, the
// same order of nibbles, the same scales. Three places where its backends disagree with each other, and what is done here:
//
//   - The upper edge of NF4's second code is the kernels' literal, one unit in the last place below the midpoint that the pure torch
//     backend takes.
//   - A value is multiplied by 1/absmax, also in a last block that is short; the torch backend divides there.
//   - A block of zeros has the codes 0 and the scale 0; the torch backend writes codes 7. Both mean zeros.
//
// The offset of double quantisation is a mean, and the order in which torch adds depends on the machine; here it is the mean rounded once.
//
// Encoding is arithmetic on f32, each operation rounded once: the same bits on every machine. The package is pure; a caller that wants
// threads cuts the values at multiples of a block.
package quant

import "math"

// Map is what 8-bit codes stand for: 256 values, ascending.
type Map [256]float32

// DynamicMap is bitsandbytes' create_dynamic_map: seven decades with 2^i (signed) or 2^(i+1) values each, which are the middles of equal
// parts of [0.1, 1], then 0 and 1. The signed map has each value with both signs, but no -1.
//
// Boundaries are base + i*step from the nearer end, rounded once, as torch's linspace computes them where there is fused multiply-add.
func DynamicMap(signed bool) *Map {
	var m Map
	zero := 0 // code of the value 0
	if signed {
		zero = 127
	}
	at := zero + 1
	for i := range 7 {
		n := 1 << (i + 1)
		if signed {
			n = 1 << i
		}
		for k := range n {
			v := decade(i) * ((boundary(k, n) + boundary(k+1, n)) / 2)
			m[at] = v
			if signed {
				m[2*zero-at] = -v
			}
			at++
		}
	}
	m[255] = 1
	return &m
}

// decade is 10^(i-6) in f32.
func decade(i int) float32 {
	return [7]float32{1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1}[i]
}

// boundary is point k of n+1 equally spaced ones in [0.1, 1]. A float64 holds the product exactly, so rounding happens once.
func boundary(k, n int) float32 {
	lo, hi := float32(0.1), float32(1)
	step := float64((hi - lo) / float32(n))
	if k < (n+1)/2 {
		return float32(float64(lo) + float64(step*float64(k)))
	}
	return float32(float64(hi) - float64(step*float64(n-k)))
}

// Nearest is the code of the value nearest to x. Halfway between two, it is the even code. NaN is code 0.
func (m *Map) Nearest(x float32) uint8 {
	p := 127
	for step := 64; step > 0; step >>= 1 {
		if x > m[p] {
			p += step
		} else {
			p -= step
		}
	}
	if x > m[p] {
		if x > (m[p]+m[p+1])*0.5 {
			p++
		}
	} else if p > 0 && x < (m[p-1]+m[p])*0.5 {
		p--
	}
	return uint8(p)
}

// Finder finds nearest codes of one map quickly: a table over the leading 16 bits of a number says where to look.
type Finder struct {
	Map    Map
	bounds [256]float32   // the largest number that has each code
	start  [1 << 16]uint8 // the code of the smallest number with these bits
}

// NewFinder makes the table, in a few milliseconds.
func NewFinder(m *Map) *Finder {
	f := &Finder{Map: *m}
	for i := range 255 {
		f.bounds[i] = (m[i] + m[i+1]) * 0.5
		if i%2 == 1 { // halfway is the even code, the next
			f.bounds[i] = math.Nextafter32(f.bounds[i], -1)
		}
	}
	f.bounds[255] = float32(math.Inf(1))
	for i := range f.start {
		bits := uint32(i) << 16
		if bits>>31 == 1 {
			bits |= 0xffff // the smallest of a negative bucket has the largest magnitude
		}
		if bits < 0x7f800000 || bits>>31 == 1 { // infinity begins at 0: NaN has the same leading bits
			f.start[i] = m.Nearest(math.Float32frombits(bits))
		}
	}
	return f
}

// Nearest is Map.Nearest.
func (f *Finder) Nearest(x float32) uint8 {
	c := f.start[math.Float32bits(x)>>16]
	for x > f.bounds[c] {
		c++
	}
	return c
}

// Encode8 writes the codes q of x in blocks that share a scale, absmax[i] = max |x| of block i: the nearest to x * (1/absmax).
func Encode8(f *Finder, x []float32, block int, q []uint8, absmax []float32) {
	for i := 0; i < len(x); i += block {
		part := x[i:min(i+block, len(x))]
		scale := maxAbs(part)
		absmax[i/block] = scale
		inverse := 1 / scale
		for j, v := range part {
			q[i+j] = f.Nearest(v * inverse)
		}
	}
}

func maxAbs(x []float32) float32 {
	var top float32
	for _, v := range x {
		top = max(top, math.Float32frombits(math.Float32bits(v)&^(1<<31)))
	}
	return top
}
