package lora

import "math/bits"

// Philox is the counter-based generator Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as
// 1, 2, 3" (SC 2011): four 32-bit words per counter value, the same on every machine and in every order of evaluation.
type Philox struct{ k0, k1 uint32 }

// NewPhilox is the generator with a 64-bit key.
func NewPhilox(key uint64) Philox { return Philox{uint32(key), uint32(key >> 32)} }

// At returns the four words of one counter.
func (p Philox) At(c0, c1, c2, c3 uint32) (uint32, uint32, uint32, uint32) {
	k0, k1 := p.k0, p.k1
	for range 5 { // two rounds a turn
		h0, l0 := bits.Mul32(philoxM0, c0)
		h1, l1 := bits.Mul32(philoxM1, c2)
		c0, c2 = h1^c1^k0, h0^c3^k1
		h2, l2 := bits.Mul32(philoxM0, c0)
		h3, l3 := bits.Mul32(philoxM1, c2)
		c0, c1, c2, c3 = h3^l1^(k0+philoxW0), l3, h2^l0^(k1+philoxW1), l2
		k0, k1 = k0+2*philoxW0&0xffffffff, k1+2*philoxW1&0xffffffff
	}
	return c0, c1, c2, c3
}

// Multipliers and key increments of Philox4x32.
const (
	philoxM0, philoxM1 = 0xD2511F53, 0xCD9E8D57
	philoxW0, philoxW1 = 0x9E3779B9, 0xBB67AE85
)

// Uniform maps a word to the float in [0, 1) with 24 bits.
func Uniform(w uint32) float64 { return float64(w>>8) * 0x1p-24 }

// Name hashes a tensor's or a site's name to a key (FNV-1a), so that a draw depends on what it is for and not on the order of
// construction.
func Name(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
