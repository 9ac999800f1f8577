package kernel

import "math"

// Precision is what the products with frozen weights multiply. Everything else is computed in the type of the activations: sums, norms,
// attention, adapters, losses, gradients of trainable tensors.
type Precision uint8

// F32 multiplies weights and activations as they are. BF16 rounds both to bfloat16 before (to nearest, ties to even; subnormal numbers
// to 0) and sums in float32: half the memory, and twice the speed where there is an instruction for it.
const (
	F32 Precision = iota
	BF16
)

func (p Precision) String() string {
	if p == BF16 {
		return "bf16"
	}
	return "f32"
}

// RoundBF16 rounds as AVX512_BF16's VCVTNEPS2BF16 does. The result is the upper half of a float32.
func RoundBF16(x float32) uint16 {
	b := math.Float32bits(x)
	switch {
	case x != x:
		return uint16(b>>16) | 1<<6 // quiet
	case b&0x7f800000 == 0:
		return uint16(b >> 16 & 0x8000)
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// WidenBF16 is the number that 16 bits stand for.
func WidenBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// round is x as the products see it.
func round[T Float](p Precision, x []T) []T {
	if p == F32 {
		return x
	}
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(WidenBF16(RoundBF16(float32(v))))
	}
	return y
}
