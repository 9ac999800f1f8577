package quant

import (
	"errors"
	"fmt"
	"math"
)

// levels is what the codes of NF4 stand for: quantiles of a normal distribution, scaled to [-1, 1] (Dettmers et al. 2023, QLoRA).
var levels = [16]float32{
	-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
	0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
}

// edges[c] is the largest value that has code c (no value reaches that of 15), as the kernels of bitsandbytes spell them.
var edges = [16]float32{
	-0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544, -0.23460740596055984, -0.13791173323988914,
	-0.045525018125772476, 0.03979014977812767, 0.1202552504837513, 0.2035212516784668, 0.2920137718319893, 0.3893125355243683,
	0.5016634166240692, 0.6427869200706482, 0.8614784178118011, 2,
}

// Block is how many weights share a scale, NestedBlock how many scales do.
const (
	Block       = 64
	NestedBlock = 256
)

// Rounding says what a decoded weight is rounded to: the type that the weights had before they were quantised.
type Rounding uint8

// The types that models are stored in.
const (
	F32 Rounding = iota
	BF16
	F16
)

// NF4 is a matrix of n values, row-major, in four bits each: value i is levels[code i] * scale of block i/Block, rounded to Round.
type NF4 struct {
	N      int
	Block  int       // values that share a scale; blocks run on across the ends of rows
	Codes  []byte    // [(N+1)/2]; the first of two codes is the high nibble
	Absmax []float32 // [blocks] the scales; nil when they are nested
	Nested *Nested
	Round  Rounding
}

// Nested is the scales of an NF4 matrix in eight bits: scale i is Map[code i] * Absmax[i/Block] + Offset.
type Nested struct {
	Codes  []uint8
	Block  int
	Absmax []float32
	Map    Map
	Offset float32
}

// NewNF4 is room for n values in blocks of Block, all of them zero. Encode fills it.
func NewNF4(n int, round Rounding) *NF4 {
	return &NF4{N: n, Block: Block, Codes: make([]byte, (n+1)/2), Absmax: make([]float32, blocks(n, Block)), Round: round}
}

func blocks(n, size int) int { return (n + size - 1) / size }

// Encode quantises x into values first .. first+len(x). first is a multiple of Block; so is the end, unless it is the matrix's.
func (q *NF4) Encode(first int, x []float32) {
	for len(x) > 0 {
		n := min(q.Block, len(x))
		q.Absmax[first/q.Block] = encodeBlock(q.Codes[first/2:], x[:n])
		x, first = x[n:], first+n
	}
}

// encodeBlock writes the codes of values that share a scale, and returns it.
func encodeBlock(codes []byte, x []float32) (scale float32) {
	scale = maxAbs(x)
	inverse := 1 / scale
	for i := 0; i+1 < len(x); i += 2 {
		codes[i/2] = code(x[i]*inverse)<<4 | code(x[i+1]*inverse)
	}
	if last := len(x) - 1; last%2 == 0 {
		codes[last/2] = code(x[last]*inverse)<<4 | code(0)
	}
	return scale
}

// cells[i] is the number of edges below i/256 - 1. Edges are further apart than that, so one comparison more settles a code.
var cells = func() (t [512]byte) {
	for i := range t {
		for t[i] < 15 && float64(edges[t[i]]) < float64(i)/256-1-1e-6 { // x+1 is rounded
			t[i]++
		}
	}
	return t
}()

// code is the number of edges below x; NaN, which is what 0/0 makes, is code 0.
func code(x float32) byte {
	if !(x > edges[0]) {
		return 0
	}
	if x > edges[14] {
		return 15
	}
	c := cells[int((x+1)*256)&511]
	if x > edges[c&15] {
		c++
	}
	return c
}

// Nest puts the scales into eight bits (double quantisation).
func (q *NF4) Nest(f *Finder) {
	n := len(q.Absmax)
	s := &Nested{Codes: make([]uint8, n), Block: NestedBlock, Absmax: make([]float32, blocks(n, NestedBlock)), Map: f.Map}
	var sum float64
	for _, a := range q.Absmax {
		sum += float64(a)
	}
	s.Offset = float32(sum / float64(max(n, 1)))
	for i, a := range q.Absmax {
		q.Absmax[i] = a - s.Offset
	}
	Encode8(f, q.Absmax, s.Block, s.Codes, s.Absmax)
	q.Absmax, q.Nested = nil, s
}

// scale is the scale of block i.
func (q *NF4) scale(i int) float32 {
	if q.Nested == nil {
		return q.Absmax[i]
	}
	s := q.Nested
	return float32(s.Map[s.Codes[i]]*s.Absmax[i/s.Block]) + s.Offset
}

// Decode writes values first .. first+len(x).
func (q *NF4) Decode(x []float32, first int) {
	for len(x) > 0 {
		block := first / q.Block
		n := min((block+1)*q.Block-first, len(x))
		q.decodeBlock(x[:n], first, q.scale(block))
		x, first = x[n:], first+n
	}
}

func (q *NF4) decodeBlock(x []float32, first int, scale float32) {
	table := levels
	for i := range table {
		table[i] = q.Round.round(float32(table[i] * scale))
	}
	if first%2 == 1 {
		x[0] = table[q.Codes[first/2]&15]
		x, first = x[1:], first+1
	}
	codes := q.Codes[first/2:]
	for len(x) >= 2 {
		c := codes[0]
		x[0], x[1] = table[c>>4], table[c&15]
		x, codes = x[2:], codes[1:]
	}
	if len(x) == 1 {
		x[0] = table[codes[0]>>4]
	}
}

// round is x in the type and back.
func (r Rounding) round(x float32) float32 {
	switch r {
	case BF16:
		b := math.Float32bits(x)
		return math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
	case F16:
		return roundHalf(x)
	}
	return x
}

// roundHalf rounds to 11 significant bits, or to multiples of 2^-24 below 2^-14, ties to even, by adding what pushes the rest out.
func roundHalf(x float32) float32 {
	b := math.Float32bits(x)
	exponent := max(int(b>>23&255), 127-14)
	push := math.Float32frombits(uint32(exponent+13)<<23 | b&(1<<31))
	return float32(x+push) - push
}

// Bytes is the memory that the matrix takes.
func (q *NF4) Bytes() int64 {
	n := int64(len(q.Codes)) + 4*int64(len(q.Absmax))
	if s := q.Nested; s != nil {
		n += int64(len(s.Codes)) + 4*int64(len(s.Absmax)) + 4*256 + 4
	}
	return n
}

// Check refuses a matrix, from a file, whose parts do not fit together.
func (q *NF4) Check() error {
	switch {
	case q.Block < 32 || q.Block > 4096 || q.Block&(q.Block-1) != 0:
		return fmt.Errorf("blocksize %d is not a power of two from 32 to 4096", q.Block)
	case len(q.Codes) != (q.N+1)/2:
		return fmt.Errorf("%d bytes of codes for %d weights, want %d", len(q.Codes), q.N, (q.N+1)/2)
	}
	n := blocks(q.N, q.Block)
	s := q.Nested
	switch {
	case s == nil && len(q.Absmax) != n:
		return fmt.Errorf("%d scales for %d blocks", len(q.Absmax), n)
	case s == nil:
		return nil
	case q.Absmax != nil:
		return errors.New("scales both plain and nested")
	case s.Block < 1 || len(s.Codes) != n || len(s.Absmax) != blocks(n, s.Block):
		return fmt.Errorf("%d nested scales and %d of theirs for %d blocks in groups of %d", len(s.Codes), len(s.Absmax), n, s.Block)
	}
	return nil
}
