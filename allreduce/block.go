package allreduce

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
)

// A block is a byte that names its form, then its values, in the fewest bits that hold each of them:
//
//	0          all values are zero; nothing follows
//	1..57      integers of so many bits in two's complement, value i at bit i*w, least significant first, padded to a byte
//	64         integers of 8 bytes; what would take 58 to 63 bits is written so
//	128+w      f32: 4 bytes base, then w = 1..31 bits each: the sign at bit w-1, below it the magnitude's bits less base
//	160        f32 as they are
//
// The forms from 128 on appear in the all-gather only, where values are finished f32. There the integer forms stand for
// multiples of the unit below 2^24, which an f32 holds exactly.
const (
	blockLen = 256
	// slack bytes after a packed payload let values be read and written 64 bytes at a time, whatever their width.
	slack = 64

	widest    = 57  // bits of a value that 8 bytes hold wherever in its first byte it begins
	wholeWord = 64  // the form of anything wider
	floatForm = 128 // + bits per value
	rawFloats = floatForm + 32

	exactFloat = 1 << 24 // integers below it are f32s
)

var errBlock = errors.New("malformed block: the frame passed its checksum but its lengths do not add up")

// width is the least form that holds every value of v with its sign.
func width(v []int64) int {
	or, neg, n := fastWidth(v)
	for _, x := range v[n:] {
		or |= x ^ x>>63
		neg |= x
	}
	if or == 0 && neg == 0 { // neg tells zeros from zeros and minus ones
		return 0
	}
	if w := bits.Len64(uint64(or)) + 1; w <= widest {
		return w
	}
	return wholeWord
}

// packed is the number of bytes of n values of w bits.
func packed(n, w int) int { return (n*w + 7) / 8 }

// pack writes v as a block to the front of dst, which has room for 1+8*len(v)+slack bytes, and returns its length. If it
// need not be tight, values take no less than 32 bits, which costs half the time.
func pack(dst []byte, v []int64, tight bool) int {
	w := width(v)
	if !tight && w > 0 && w < 32 {
		w = 32
	}
	dst[0] = byte(w)
	switch body := dst[1:]; {
	case w == 0:
	case w == 32:
		packWords(body, v)
	case w <= widest:
		packValues(body, v, uint(w))
	default:
		for i, x := range v {
			binary.LittleEndian.PutUint64(body[8*i:], uint64(x))
		}
	}
	return 1 + packed(len(v), w)
}

// packWords writes values of 32 bits, unrolled by four.
func packWords(body []byte, v []int64) {
	for ; len(v) >= 4; v = v[4:] {
		b, x := body[:16:16], v[:4:4]
		binary.LittleEndian.PutUint32(b[0:4], uint32(x[0]))
		binary.LittleEndian.PutUint32(b[4:8], uint32(x[1]))
		binary.LittleEndian.PutUint32(b[8:12], uint32(x[2]))
		binary.LittleEndian.PutUint32(b[12:16], uint32(x[3]))
		body = body[16:]
	}
	for i, x := range v {
		binary.LittleEndian.PutUint32(body[4*i:], uint32(x))
	}
}

// packValues writes values of at most widest bits. Groups of 8 end with a byte, so that each part begins with one.
func packValues(body []byte, v []int64, w uint) {
	n := fastPack(body, v, w)
	if body, v = body[n/8*int(w):], v[n:]; w < 32 {
		packPairs(body, v, w)
		return
	}
	packBits(body, v, w)
}

// packPairs writes values of less than 32 bits, two at a time.
func packPairs(body []byte, v []int64, w uint) {
	mask := uint64(1)<<w - 1
	var acc uint64
	var n uint // bits in acc, below 64
	for ; len(v) >= 2; v = v[2:] {
		pair := uint64(v[0])&mask | uint64(v[1])&mask<<(w&63)
		acc |= pair << (n & 63)
		if n += 2 * w; n >= 64 {
			binary.LittleEndian.PutUint64(body, acc)
			body = body[8:]
			n -= 64
			acc = pair >> (2*w - n) // 64 and more: nothing is left
		}
	}
	for len(v) > 0 || n > 0 { // the odd value and what is still in acc: at most 8 + 4 bytes
		if len(v) > 0 && n <= 32 {
			acc |= uint64(v[0]) & mask << n
			n, v = n+w, nil
		}
		body[0] = byte(acc)
		body = body[1:]
		acc >>= 8
		n -= min(n, 8)
	}
}

// packBits writes values of at most widest bits, 8 bytes at each value's place.
func packBits(body []byte, v []int64, w uint) {
	mask := uint64(1)<<w - 1
	var acc uint64
	var n uint // bits in acc, below 8
	for _, x := range v {
		acc |= uint64(x) & mask << n
		binary.LittleEndian.PutUint64(body, acc)
		n += w
		body = body[n>>3:]
		acc >>= n &^ 7
		n &= 7
	}
}

// open checks the block of n values at the front of src[:end] and returns its form and its body, with slack.
func open(src []byte, end, n int) (form int, body []byte, err error) {
	if end < 1 {
		return 0, nil, errBlock
	}
	size := 0
	switch form = int(src[0]); {
	case form <= widest || form == wholeWord:
		size = packed(n, form)
	case form > floatForm && form < rawFloats:
		size = 4 + packed(n, form-floatForm)
	case form == rawFloats:
		size = 4 * n
	default:
		return 0, nil, errBlock
	}
	if 1+size > end {
		return 0, nil, errBlock
	}
	return form, src[1:], nil
}

// unpackAdd reads the block of len(dst) values at the front of src[:end] and writes dst = in + block. src has
// slack bytes beyond end. It returns the length of the block.
func unpackAdd(dst, in []int64, src []byte, end int) (int, error) {
	w, body, err := open(src, end, len(dst))
	if err != nil || w >= floatForm {
		return 0, errBlock
	}
	in = in[:len(dst)]
	switch {
	case w == 0:
		copy(dst, in)
	case w == 32:
		addWords(dst, in, body)
	case w == wholeWord:
		for i := range dst {
			dst[i] = in[i] + int64(binary.LittleEndian.Uint64(body[8*i:]))
		}
	default:
		n := fastAdd(dst, in, body, uint(w))
		addBits(dst[n:], in[n:], body[n/8*w:], uint(w))
	}
	return 1 + packed(len(dst), w), nil
}

// addBits is unpackAdd's loop for values of at most widest bits.
func addBits(dst, in []int64, body []byte, w uint) {
	top, at := 64-w, uint(0)
	for i := range dst {
		x := binary.LittleEndian.Uint64(body[at>>3:])
		dst[i] = in[i] + int64(x<<((top-at&7)&63))>>(top&63)
		at += w
	}
}

// addWords is unpackAdd's loop for values of 32 bits.
func addWords(dst, in []int64, body []byte) {
	for len(dst) >= 4 && len(in) >= 4 {
		b, d, x := body[:16:16], dst[:4:4], in[:4:4]
		d[0] = x[0] + int64(int32(binary.LittleEndian.Uint32(b[0:4])))
		d[1] = x[1] + int64(int32(binary.LittleEndian.Uint32(b[4:8])))
		d[2] = x[2] + int64(int32(binary.LittleEndian.Uint32(b[8:12])))
		d[3] = x[3] + int64(int32(binary.LittleEndian.Uint32(b[12:16])))
		body, dst, in = body[16:], dst[4:], in[4:]
	}
	for i := range dst {
		dst[i] = in[i] + int64(int32(binary.LittleEndian.Uint32(body[4*i:])))
	}
}

// packFloats writes g, multiples of unit, as a block and returns its length; tight as in pack. A rounded integer is never
// a negative zero, so zero means all bits zero.
func packFloats(dst []byte, g []float32, unit float32, tight bool) int {
	lo, hi := uint32(0), uint32(math.MaxUint32)
	if tight {
		lo, hi = magnitudes(g)
	}
	switch delta := bits.Len32(hi-lo) + 1; {
	case hi == 0:
		dst[0] = 0
		return 1
	case tight && integerBits(hi, unit) <= delta:
		return packIntegers(dst, g, 1/unit)
	case delta < 32:
		dst[0] = byte(floatForm + delta)
		binary.LittleEndian.PutUint32(dst[1:], lo)
		packDelta(dst[5:], g, lo, uint(delta))
		return 5 + packed(len(g), delta)
	}
	dst[0] = rawFloats
	putFloats(dst[1:], g)
	return 1 + 4*len(g)
}

// magnitudes is the least and the greatest of the values' bits without their signs.
func magnitudes(g []float32) (lo, hi uint32) {
	lo, hi, n := fastMagnitudes(g)
	for _, x := range g[n:] {
		m := math.Float32bits(x) &^ (1 << 31)
		lo, hi = min(lo, m), max(hi, m)
	}
	return lo, hi
}

// integerBits is how many bits, sign included, the multiples of unit up to the value with these bits take, or too many
// if they are not exact in an f32.
func integerBits(hi uint32, unit float32) int {
	top := math.Float32frombits(hi) / unit
	if !(top < exactFloat) {
		return 64
	}
	return bits.Len32(uint32(top)) + 1
}

// packIntegers writes g*scale, integers all, as an integer block.
func packIntegers(dst []byte, g []float32, scale float32) int {
	var v [blockLen]int64
	for i, x := range g {
		v[i] = int64(x * scale)
	}
	return pack(dst, v[:len(g)], true)
}

// packDelta writes the values' magnitudes less base, in w bits with the sign on top.
func packDelta(body []byte, g []float32, base uint32, w uint) {
	n := fastPackDelta(body, g, base, w)
	var v [blockLen]int64
	for i, x := range g[n:] {
		b := math.Float32bits(x)
		v[i] = int64(b&^(1<<31) - base | b>>31<<((w-1)&31))
	}
	packPairs(body[n/8*int(w):], v[:len(g)-n], w)
}

// putFloats writes g as little-endian bytes, unrolled by four.
func putFloats(body []byte, g []float32) {
	for ; len(g) >= 4; g = g[4:] {
		b, x := body[:16:16], g[:4:4]
		binary.LittleEndian.PutUint32(b[0:4], math.Float32bits(x[0]))
		binary.LittleEndian.PutUint32(b[4:8], math.Float32bits(x[1]))
		binary.LittleEndian.PutUint32(b[8:12], math.Float32bits(x[2]))
		binary.LittleEndian.PutUint32(b[12:16], math.Float32bits(x[3]))
		body = body[16:]
	}
	for i, x := range g {
		binary.LittleEndian.PutUint32(body[4*i:], math.Float32bits(x))
	}
}

// floats is putFloats' reverse.
func floats(g []float32, body []byte) {
	for ; len(g) >= 4; g = g[4:] {
		b, d := body[:16:16], g[:4:4]
		d[0] = math.Float32frombits(binary.LittleEndian.Uint32(b[0:4]))
		d[1] = math.Float32frombits(binary.LittleEndian.Uint32(b[4:8]))
		d[2] = math.Float32frombits(binary.LittleEndian.Uint32(b[8:12]))
		d[3] = math.Float32frombits(binary.LittleEndian.Uint32(b[12:16]))
		body = body[16:]
	}
	for i := range g {
		g[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[4*i:]))
	}
}

// unpackFloats reads the block of len(g) values at the front of src[:end] and returns its length. Every finite or
// infinite bit pattern that a frame with a right checksum may hold is a value: there is nothing to refuse in it.
func unpackFloats(g []float32, unit float32, src []byte, end int) (int, error) {
	form, body, err := open(src, end, len(g))
	switch {
	case err != nil:
		return 0, err
	case form == rawFloats:
		floats(g, body)
		return 1 + 4*len(g), nil
	case form > floatForm:
		unpackDelta(g, binary.LittleEndian.Uint32(body), body[4:], uint(form-floatForm))
		return 5 + packed(len(g), form-floatForm), nil
	}
	var zero, v [blockLen]int64
	n, err := unpackAdd(v[:len(g)], zero[:], src, end)
	round(g, v[:len(g)], unit)
	return n, err
}

// unpackDelta is packDelta's reverse.
func unpackDelta(g []float32, base uint32, body []byte, w uint) {
	n := fastUnpackDelta(g, base, body, w)
	g, body = g[n:], body[n/8*int(w):]
	mask, sign := uint32(1)<<(w-1)-1, w-1
	for i := range g {
		at := uint(i) * w
		x := uint32(binary.LittleEndian.Uint64(body[at>>3:]) >> (at & 7))
		g[i] = math.Float32frombits(x&mask + base | x>>(sign&31)<<31)
	}
}
