package allreduce

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
)

// A block is a byte with the width w of its values, then its values in w bytes each, little-endian two's
// complement. w = 0 stands for a block of zeros. In the all-gather the gradient's blocks hold f32: w is 0 or 4.
const (
	blockLen = 1024
	// slack bytes after a packed payload let every value be read and written as 8 bytes, whatever its width.
	slack = 8
)

var errBlock = errors.New("malformed block: the frame passed its checksum but its lengths do not add up")

// width is the least number of bytes that hold every value of v with its sign.
func width(v []int64) int {
	var or uint64
	for _, x := range v {
		or |= uint64(x ^ x>>63)
	}
	if or == 0 && !anyNegative(v) {
		return 0
	}
	return bits.Len64(or)/8 + 1
}

// anyNegative tells a block of zeros from one of zeros and minus ones.
func anyNegative(v []int64) bool {
	for _, x := range v {
		if x < 0 {
			return true
		}
	}
	return false
}

// pack writes v as a block to the front of dst, which has room for 1+8*len(v)+slack bytes, and returns its length.
func pack(dst []byte, v []int64) int {
	w := width(v)
	dst[0] = byte(w)
	switch body := dst[1:]; w {
	case 0:
	case 4:
		pack4(body, v)
	default:
		for _, x := range v {
			binary.LittleEndian.PutUint64(body, uint64(x))
			body = body[w:]
		}
	}
	return 1 + w*len(v)
}

// open checks the block of n values at the front of src[:end] and returns its width and its body, with slack.
func open(src []byte, end, n int) (w int, body []byte, err error) {
	if end < 1 {
		return 0, nil, errBlock
	}
	if w = int(src[0]); w > 8 || 1+w*n > end {
		return 0, nil, errBlock
	}
	return w, src[1:], nil
}

// unpackAdd reads the block of len(dst) values at the front of src[:end] and writes dst = in + block. src has
// slack bytes beyond end. It returns the length of the block.
func unpackAdd(dst, in []int64, src []byte, end int) (int, error) {
	w, body, err := open(src, end, len(dst))
	if err != nil {
		return 0, err
	}
	in = in[:len(dst)]
	switch w {
	case 0:
		copy(dst, in)
	case 4:
		unpackAdd4(dst, in, body)
	default:
		shift := uint(64 - 8*w)
		for i := range dst {
			dst[i] = in[i] + int64(binary.LittleEndian.Uint64(body)<<(shift&63))>>(shift&63)
			body = body[w:]
		}
	}
	return 1 + w*len(dst), nil
}

// pack4 is pack's loop for 4 bytes, by far the most frequent width, unrolled by four.
func pack4(body []byte, v []int64) {
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

// unpackAdd4 is unpackAdd's loop for 4 bytes.
func unpackAdd4(dst, in []int64, body []byte) {
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

// packFloats writes g as an f32 block. A rounded integer is never a negative zero, so zero means all bits zero.
func packFloats(dst []byte, g []float32) int {
	if dst[0] = 0; zeros(g) {
		return 1
	}
	dst[0] = 4
	putFloats(dst[1:], g)
	return 1 + 4*len(g)
}

// putFloats writes g as little-endian bytes.
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

func zeros(g []float32) bool {
	for _, x := range g {
		if math.Float32bits(x) != 0 {
			return false
		}
	}
	return true
}

// unpackFloats reads the f32 block of len(g) values at the front of src[:end] and returns its length.
func unpackFloats(g []float32, src []byte, end int) (int, error) {
	w, body, err := open(src, end, len(g))
	switch {
	case err != nil:
		return 0, err
	case w == 0:
		clear(g)
		return 1, nil
	case w != 4:
		return 0, errBlock
	}
	floats(g, body)
	return 1 + 4*len(g), nil
}

// floats fills g from little-endian bytes.
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
