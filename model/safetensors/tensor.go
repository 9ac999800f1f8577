package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// Tensor is one named f32 tensor, row-major, on its way to a file.
type Tensor struct {
	Name  string
	Shape []int // [] is a scalar
	Data  []float32
	DType DType // how it is stored: F32, F16 or BF16; "" is F32

	// Load, if Data is nil, gives the elements when they are written: a model larger than memory is written a tensor at a time.
	Load func() ([]float32, error)
}

// DType names an element type as the header spells it.
type DType string

// The element types of the format that lorad can place in a file. Only F32, F16 and BF16 are read as numbers.
const (
	Bool DType = "BOOL"
	U8   DType = "U8"
	I8   DType = "I8"
	F8E5 DType = "F8_E5M2"
	F8E4 DType = "F8_E4M3"
	I16  DType = "I16"
	U16  DType = "U16"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I32  DType = "I32"
	U32  DType = "U32"
	F32  DType = "F32"
	F64  DType = "F64"
	I64  DType = "I64"
	U64  DType = "U64"
	C64  DType = "C64"
)

// Size is the number of bytes of one element, 0 for a type that is not known.
func (d DType) Size() int {
	switch d {
	case Bool, U8, I8, F8E5, F8E4:
		return 1
	case I16, U16, F16, BF16:
		return 2
	case I32, U32, F32:
		return 4
	case F64, I64, U64, C64:
		return 8
	}
	return 0
}

// elements is the product of the dimensions, refused when it does not fit a file offset.
func elements(shape []int) (int64, error) {
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64/8 {
			return 0, fmt.Errorf("shape %v has too many elements", shape)
		}
		n = lo
	}
	return int64(n), nil
}

// Widen converts stored elements of F32, F16 or BF16 to f32, exactly: every F16 and BF16 value is an f32 value.
func Widen(dst []float32, src []byte, d DType) {
	switch d {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	case F16:
		for i := range dst {
			dst[i] = halfToFloat(binary.LittleEndian.Uint16(src[2*i:]))
		}
	}
}

// narrow converts f32 to stored elements; the 16-bit types round to nearest, ties to even.
func narrow(dst []byte, src []float32, d DType) {
	switch d {
	case BF16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], ToBF16(v))
		}
		return
	case F16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], ToF16(v))
		}
		return
	}
	for i, v := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

// Round is v as it is read back after it was stored.
func Round(v float32, d DType) float32 {
	switch d {
	case BF16:
		return math.Float32frombits(uint32(ToBF16(v)) << 16)
	case F16:
		return halfToFloat(ToF16(v))
	}
	return v
}

// ToBF16 rounds to the nearest bfloat16, ties to even. A NaN becomes the quiet NaN 0x7fc0 as in PyTorch.
func ToBF16(v float32) uint16 {
	if v != v {
		return 0x7fc0
	}
	b := math.Float32bits(v)
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// ToF16 rounds to the nearest IEEE 754 binary16, ties to even; from 65520 on that is infinity. A NaN becomes the quiet NaN 0x7e00.
func ToF16(v float32) uint16 {
	b := math.Float32bits(v)
	sign, abs := uint16(b>>16)&0x8000, b&0x7fffffff
	switch {
	case abs > 0x7f800000:
		return 0x7e00
	case abs >= 0x477ff000: // 65520
		return sign | 0x7c00
	case abs < 0x38800000: // below 2^-14: multiples of 2^-24, rounded by the addition of 0.5
		return sign | uint16(math.Float32bits(math.Float32frombits(abs)+0.5)-0x3f000000)
	}
	return sign | uint16((abs-112<<23+0xfff+abs>>13&1)>>13)
}

// halfToFloat widens an IEEE 754 binary16: 1 sign, 5 exponent (bias 15) and 10 fraction bits.
func halfToFloat(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exp {
	case 31: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	case 0: // zero or subnormal: frac * 2^-24, exact in f32
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
