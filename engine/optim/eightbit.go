package optim

import (
	"math"

	"lorad/engine/quant"
)

// EightBit is bitsandbytes' block-wise 8-bit AdamW (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"), operation by
// operation as its CUDA kernel kOptimizerStatic8bit2StateBlockwise with optimiser ADAM. The first moment is in codes of the signed dynamic
// map, the second of the unsigned; 256 values of a tensor share a scale. Two bytes a parameter instead of eight.
//
// As there, and unlike torch, weight decay comes after the update, and tensors below 4096 elements keep moments in f32. Where the kernel
// takes CUDA's fast division and powers, and where its compiler fuses multiply and add, each operation here is rounded once.
type EightBit struct {
	rule             AdamW
	parts            []Part
	signed, unsigned *quant.Finder // immutable, shared by all that Fresh makes
	m, v             moment        // of all large tensors, one after another; a tensor begins a new block
	smallM, smallV   []float32     // of all others
}

type moment struct {
	codes  []uint8
	absmax []float32
}

// Sizes of bitsandbytes: BLOCKSIZE_2STATE and min_8bit_size.
const (
	block8 = 256
	small8 = 4096
)

// NewEightBit makes the state of a vector that consists of parts.
func NewEightBit(rule AdamW, parts []Part) *EightBit {
	return newEightBit(rule, parts, quant.NewFinder(quant.DynamicMap(true)), quant.NewFinder(quant.DynamicMap(false)))
}

func newEightBit(rule AdamW, parts []Part, signed, unsigned *quant.Finder) *EightBit {
	o := &EightBit{rule: rule, parts: parts, signed: signed, unsigned: unsigned}
	codes, blocks, small := 0, 0, 0
	for _, p := range parts {
		if p.Len < small8 {
			small += p.Len
		} else {
			codes, blocks = codes+p.Len, blocks+(p.Len+block8-1)/block8
		}
	}
	o.m = moment{make([]uint8, codes), make([]float32, blocks)}
	o.v = moment{make([]uint8, codes), make([]float32, blocks)}
	o.smallM, o.smallV = make([]float32, small), make([]float32, small)
	return o
}

// Fresh has scales of zero.
func (o *EightBit) Fresh() Optimizer { return newEightBit(o.rule, o.parts, o.signed, o.unsigned) }

// Visit passes codes and scales of the first moments, of the second, then the f32 moments of small tensors.
func (o *EightBit) Visit(floats func([]float32), bytes func([]byte)) {
	for _, s := range []moment{o.m, o.v} {
		bytes(s.codes)
		floats(s.absmax)
	}
	floats(o.smallM)
	floats(o.smallV)
}

// Step updates tensor by tensor, block by block.
func (o *EightBit) Step(p, g []float32, lr float64, t int) { inTurn(o.Pieces(p, g, lr, t)) }

// Pieces cuts large tensors between blocks; a small one is a piece of its own.
func (o *EightBit) Pieces(p, g []float32, lr float64, t int) (out []func()) {
	m, v, sm, sv := o.m, o.v, o.smallM, o.smallV
	for _, part := range o.parts {
		s := o.rule.of(part).scalars8(float32(lr*part.Rate), t)
		p, g := take(&p, part.Len), take(&g, part.Len)
		if part.Len < small8 {
			m, v := take(&sm, part.Len), take(&sv, part.Len)
			out = append(out, func() { s.step(p, g, m, v) })
			continue
		}
		for len(p) > 0 {
			n := min(pieceLen, len(p))
			p, g, m, v := take(&p, n), take(&g, n), m.take(n), v.take(n)
			out = append(out, func() { o.blocks(&s, p, g, m, v) })
		}
	}
	return out
}

// take cuts the first n elements off.
func take(x *[]float32, n int) []float32 {
	head := (*x)[:n]
	*x = (*x)[n:]
	return head
}

// take cuts the blocks of the first n elements off.
func (m *moment) take(n int) moment {
	k := (n + block8 - 1) / block8
	head := moment{m.codes[:n], m.absmax[:k]}
	m.codes, m.absmax = m.codes[n:], m.absmax[k:]
	return head
}

func (o *EightBit) blocks(s *scalars8, p, g []float32, m, v moment) {
	for len(p) > 0 {
		n := min(block8, len(p))
		o.block(s, take(&p, n), take(&g, n), m.take(n), v.take(n))
	}
}

// block takes the moments of one block apart, steps, and puts them together again.
func (o *EightBit) block(s *scalars8, p, g []float32, m, v moment) {
	n := len(p)
	var memory [2][block8]float32
	first, second := memory[0][:n], memory[1][:n]
	scale1, scale2 := m.absmax[0], v.absmax[0]
	for i, c := range m.codes {
		first[i] = o.signed.Map[c] * scale1
	}
	for i, c := range v.codes {
		second[i] = o.unsigned.Map[c] * scale2
	}
	s.step(p, g, first, second)
	scale1, scale2 = largest(first), largest(second)
	m.absmax[0], v.absmax[0] = scale1, scale2
	for i, x := range first {
		m.codes[i] = o.signedCode(x, scale1)
	}
	for i, x := range second {
		v.codes[i] = o.unsigned.Nearest(x / scale2)
	}
}

// signedCode is the nearest code, moved by one if it would change the sign. In a block of zeros that is code 255, as in the kernel.
func (o *EightBit) signedCode(x, absmax float32) uint8 {
	c := o.signed.Nearest(x / absmax)
	switch {
	case (math.Float32bits(o.signed.Map[c])^math.Float32bits(x))>>31 == 0:
		return c
	case x > 0:
		return c + 1
	default:
		return c - 1
	}
}

func largest(x []float32) float32 {
	var top uint32 // magnitudes are ordered as their bits are; there is no NaN among them
	for _, v := range x {
		top = max(top, math.Float32bits(v)&^(1<<31))
	}
	return math.Float32frombits(top)
}

// scalars8 are what a step of the kernel needs besides the vectors. It works them out in f32 from betas in f32; so do these, but for the
// powers, which are exact to f64.
type scalars8 struct {
	beta1, beta2, oneMinusBeta1, oneMinusBeta2 float32
	stepSize, eps                              float32 // -lr * sqrt(1-b2^t) / (1-b1^t); eps * sqrt(1-b2^t)
	keep                                       float32 // 1 - lr*decay
}

func (o AdamW) scalars8(lr float32, t int) scalars8 {
	correction1 := 1 - power(float64(o.Beta1), t)
	correction2 := math.Sqrt(1 - power(float64(o.Beta2), t))
	return scalars8{
		beta1: o.Beta1, oneMinusBeta1: 1 - o.Beta1,
		beta2: o.Beta2, oneMinusBeta2: 1 - o.Beta2,
		stepSize: float32(float64(-float64(lr)*correction2) / correction1),
		eps:      float32(correction2 * float64(o.Eps)),
		keep:     1 - float32(lr*o.WeightDecay),
	}
}

// step changes p, m and v. An element whose gradient is no number is left alone and forgets its moments.
func (s *scalars8) step(p, g, m, v []float32) {
	n := stepVector8(s, p, g, m, v)
	s.stepEach(p[n:], g[n:], m[n:], v[n:])
}

// stepEach is the loop in Go: all of it where there is no assembly, and what the assembly is tested against.
func (s *scalars8) stepEach(p, g, m, v []float32) {
	for i, gi := range g {
		if gi-gi != 0 { // NaN or infinite
			m[i], v[i] = 0, 0
			continue
		}
		vi := float32(v[i]*s.beta2) + float32(float32(s.oneMinusBeta2*gi)*gi)
		mi := float32(m[i]*s.beta1) + float32(s.oneMinusBeta1*gi)
		m[i], v[i] = mi, vi
		p[i] = float32((p[i] + float32(s.stepSize*(mi/(sqrt(vi)+s.eps)))) * s.keep)
	}
}
