package optim

import "math"

// NoExponent stands for the exponent of nothing.
const NoExponent = math.MinInt8

// Exponents writes for each parameter the exponent of the largest power of two that is not above the root of its second
// moment after t updates, bias corrected: how large its gradients are, in the eyes of the optimiser. A moment that is
// zero, or too small for a normal f32, has NoExponent. Only exponents are added and halved: the same on every machine.
func (o *Plain) Exponents(dst []int8, t int) {
	shift := o.rule.correction(t)
	for i, v := range o.v {
		dst[i] = rootExponent(v, shift)
	}
}

// Exponents is Plain's; a moment whose code is that of zero has NoExponent.
func (o *EightBit) Exponents(dst []int8, t int) {
	shift := o.rule.correction(t)
	v, small := o.v, o.smallV
	for _, part := range o.parts {
		n := part.Len
		if n < small8 {
			for i, x := range small[:n] {
				dst[i] = rootExponent(x, shift)
			}
			small = small[n:]
		} else {
			for i, c := range v.codes[:n] {
				dst[i] = rootExponent(o.unsigned.Map[c]*v.absmax[i/block8], shift)
			}
			v = moment{v.codes[n:], v.absmax[(n+block8-1)/block8:]}
		}
		dst = dst[n:]
	}
}

// correction is the exponent of 1 - b2^t, by which second moments are too small.
func (o AdamW) correction(t int) int {
	if t < 1 {
		return 0
	}
	_, e := math.Frexp(1 - power(decimal(o.Beta2), t))
	return e - 1
}

func rootExponent(v float32, shift int) int8 {
	e := int(math.Float32bits(v) >> 23 & 0xff)
	if e == 0 || e == 0xff {
		return NoExponent
	}
	return int8((e - 127 - shift) >> 1)
}
