// Package lora is the randomness and the small maths of low-rank adapters: y = W x + scale * B(A(dropout(x))).
//
// Every draw comes from a counter-based generator keyed by what the draw is for: the seed and the tensor's name for initial
// values; seed, step, micro-batch, site and element for dropout. So a step is a pure function, whoever computes it, and a
// micro-batch that is computed again after a failure has the same bits.
//
// Why not math/rand: a stream has a position, and a position depends on who drew before.
package lora

import (
	"math"

	"lorad/engine"
	"lorad/engine/kernel"
)

// InitA fills an [r,in] tensor with U(-1/sqrt(in), 1/sqrt(in)), which is what PEFT's kaiming_uniform(a=sqrt(5)) amounts to.
func InitA[T kernel.Float](a []T, in int, seed uint64, name string) {
	p, bound := NewPhilox(seed^Name(name)), 1/math.Sqrt(float64(in))
	each(p, len(a), func(i int, w uint32) {
		a[i] = T(float32(bound * (2*Uniform(w) - 1)))
	})
}

// InitNormal fills w with N(0, std^2) by Box and Muller's transform. Logarithm and sine are the machine's own, so another kind of
// processor may differ in the last bit: a fresh model is made once and copied, unlike InitA's values, which are the same everywhere.
func InitNormal[T kernel.Float](w []T, std float64, seed uint64, name string) {
	p := NewPhilox(seed ^ Name(name))
	for i := 0; i < len(w); i += 2 {
		a, b, _, _ := p.At(uint32(i), uint32(i>>32), 1, 0)
		radius := std * math.Sqrt(-2*math.Log(1-Uniform(a))) // 1-u is in (0, 1]
		sin, cos := math.Sincos(2 * math.Pi * Uniform(b))
		w[i] = T(float32(radius * cos))
		if i+1 < len(w) {
			w[i+1] = T(float32(radius * sin))
		}
	}
}

// each visits n words of a generator, four per counter value.
func each(p Philox, n int, f func(i int, w uint32)) {
	for i := 0; i < n; i += 4 {
		a, b, c, d := p.At(uint32(i/4), uint32(i>>34), 0, 0)
		for j, w := range [4]uint32{a, b, c, d} {
			if i+j < n {
				f(i+j, w)
			}
		}
	}
}

// Dropout is the mask of one site in one micro-batch. The zero value drops nothing.
type Dropout struct {
	philox    Philox
	site      uint32
	step      uint32
	threshold uint32 // a 16-bit draw below it drops
	Keep      float64
}

// NewDropout keeps an element with probability 1-p, rounded to a multiple of 2^-16. Site numbers the adapter within the model.
func NewDropout(p float64, key engine.Key, site int) Dropout {
	t := min(uint32(math.Round(p*65536)), 65535)
	return Dropout{NewPhilox(key.Seed ^ uint64(key.Micro)*0x9E3779B97F4A7C15), uint32(site), key.Step, t, 1 - float64(t)/65536}
}

// Draw fills mask with the draws of elements 8*first .. 8*(first+len(mask)) of the site: bit j of byte i keeps element 8*i+j.
func (d Dropout) Draw(first int, mask []uint8) {
	if n := len(mask) &^ 15; wide && n > 0 && first+n <= 1<<32 { // the counter's upper word is 0
		draw16(n, &mask[0], uint32(first), d.site, d.step, d.philox.k0, d.philox.k1, d.threshold)
		first, mask = first+n, mask[n:]
	}
	d.draw(first, mask)
}

// draw is Draw in Go.
func (d Dropout) draw(first int, mask []uint8) {
	for i := range mask {
		block := uint64(first + i)
		a, b, c, e := d.philox.At(uint32(block), uint32(block>>32), d.site, d.step)
		mask[i] = d.pair(a) | d.pair(b)<<2 | d.pair(c)<<4 | d.pair(e)<<6
	}
}

// pair compares both halves of a word with the threshold, without branches: draws are not predictable.
func (d Dropout) pair(w uint32) uint8 {
	lo, hi := w&0xffff-d.threshold, w>>16-d.threshold // the top bit is set if the draw was below
	return uint8(^lo>>31 | ^hi>>31<<1)
}

// Apply writes y = x/keep where mask keeps and 0 elsewhere. The mask starts at x[0]; y may be x.
func Apply[T kernel.Float](mask []uint8, keep float64, y, x []T) {
	y = y[:len(x)]
	if from, ok := any(x).([]float32); ok && wide && len(x) >= 16 {
		n, to := len(x)&^15, any(y).([]float32)
		apply16(n, &mask[:n/8][0], float32(1/keep), &to[0], &from[0])
		mask, x, y = mask[n/8:], x[n:], y[n:]
	}
	apply(mask, keep, y, x)
}

// apply is Apply in Go.
func apply[T kernel.Float](mask []uint8, keep float64, y, x []T) {
	factor := [2]T{0, T(1 / keep)}
	for len(x) >= 8 {
		m, a, b := mask[0], x[:8], y[:8]
		b[0], b[1] = a[0]*factor[m&1], a[1]*factor[m>>1&1]
		b[2], b[3] = a[2]*factor[m>>2&1], a[3]*factor[m>>3&1]
		b[4], b[5] = a[4]*factor[m>>4&1], a[5]*factor[m>>5&1]
		b[6], b[7] = a[6]*factor[m>>6&1], a[7]*factor[m>>7]
		mask, x, y = mask[1:], x[8:], y[8:]
	}
	for j := range x {
		y[j] = x[j] * factor[mask[0]>>j&1]
	}
}

// noiseSite is what the draws of AddNoise are for: no adapter has this number.
const noiseSite = 1<<32 - 1

// AddNoise adds U(-bound, bound) to each element of x, the elements first, first+1, ... of the embedded micro-batch; first is a multiple of 4.
// It is NEFTune (Jain et al. 2023): with bound = alpha/sqrt(L*d) for a sequence of L tokens of width d, as in transformers' trainer.
func AddNoise[T kernel.Float](x []T, bound float64, key engine.Key, first int) {
	p := NewPhilox(key.Seed ^ uint64(key.Micro)*0x9E3779B97F4A7C15)
	for i := 0; i < len(x); i += 4 {
		block := uint64(first+i) / 4
		a, b, c, d := p.At(uint32(block), uint32(block>>32), noiseSite, key.Step)
		for j, w := range [4]uint32{a, b, c, d} {
			if i+j < len(x) {
				x[i+j] += T(float32(bound * (2*Uniform(w) - 1)))
			}
		}
	}
}
