package cpu

import (
	"math"

	"lorad/engine/kernel"
)

// format is how the numbers of a product lie in panels and in the rows of A. A unit is a word of 32 bits in each, so tiles, strips and
// the driver are the same for all.
type format uint8

const (
	// full is a float32 per word.
	full format = iota
	// pairs is two bf16 per word, neighbours along k, the even one in the lower half: for the tile of AVX512_BF16, whose
	// instruction adds the odd elements' product to a sum and then the even elements', rounding each time.
	pairs
	// swapped is a bf16 per word, as a float32, with neighbours along k exchanged: the float32 tile then computes what the
	// instruction does, bit for bit but for subnormal numbers, which the instruction takes for 0.
	swapped
)

// steps is the number of words for k numbers.
func (f format) steps(k int) int {
	switch f {
	case pairs:
		return (k + 1) / 2
	case swapped:
		return (k + 1) &^ 1
	}
	return k
}

// slab is the number of columns of B that are packed together.
func (f format) slab() int {
	if f == pairs {
		return 2 * slabCols
	}
	return slabCols
}

// pairKernels is what a level with a bf16 instruction brings.
type pairKernels struct {
	tile  tile
	round func(n int, dst, src *float32) // n (a multiple of 32) numbers to pairs along the row; dst may be src
	weave func(k int, dst, src *float32) // see weavePairs
	turn  func(k int, src, dst *float32) // see turnPairs
}

// word makes a pair.
func word(even, odd float32) float32 {
	return math.Float32frombits(uint32(kernel.RoundBF16(even)) | uint32(kernel.RoundBF16(odd))<<16)
}

// element widens half i&1 of a pair.
func element(w float32, i int) float32 {
	b := math.Float32bits(w)
	if i&1 == 0 {
		return math.Float32frombits(b << 16)
	}
	return math.Float32frombits(b &^ 0xffff)
}

// roundRow writes the pairs of src; an odd last one is completed with 0.
func (p *pairKernels) roundRow(dst, src []float32) {
	n := 0
	if p.round != nil {
		if n = len(src) &^ 31; n > 0 {
			p.round(n, &dst[0], &src[0])
		}
	}
	for i := n; i < len(src); i += 2 {
		odd := float32(0)
		if i+1 < len(src) {
			odd = src[i+1]
		}
		dst[i/2] = word(src[i], odd)
	}
}

// swapRow writes src rounded, with neighbours exchanged; an odd last one gets a 0 before it.
func swapRow(dst, src []float32) {
	if len(src)&1 == 1 {
		dst[len(src)-1] = 0
	}
	for i, v := range src {
		dst[i^1] = kernel.WidenBF16(kernel.RoundBF16(v))
	}
}

// roundedWords is how many words of A are rounded together; see computeRounded.
const roundedWords = 1 << 20

// computeRounded is compute for products of several slabs, each of which would round A again, and read twice the memory. It takes so many blocks of k at a
// time that what is rounded stays in the cache for all slabs.
func (g *product) computeRounded(pieces int) {
	step := kStep(g.k)
	length := max(1, 2*roundedWords/(g.m*step)) * step
	for ; g.from < g.k; g.from += length {
		g.to = min(g.from+length, g.k)
		n := g.m * g.roundedStride()
		if cap(g.job.rounded) < n {
			g.job.rounded = make([]float32, n)
		}
		g.rounded = g.job.rounded[:n]
		g.ops.team.run((g.m+roundRows-1)/roundRows, (*rounding)(g))
		g.ops.team.run(pieces, g)
	}
}

// roundedStride is a line more than a row: rows a multiple of 4 KiB apart would throw each other out of the first cache.
func (g *product) roundedStride() int { return (g.to-g.from+1)/2 + 16 }

// rounding is the task of rounding A: so many rows a piece.
type rounding product

const roundRows = 32

func (r *rounding) piece(x int) {
	n := (*product)(r).roundedStride()
	for i := x * roundRows; i < min((x+1)*roundRows, r.m); i++ {
		r.pairs.roundRow(r.rounded[i*n:i*n+(r.to-r.from+1)/2], r.a[i*r.as+r.from:i*r.as+r.to])
	}
}

// roundA is rowsOfA for the formats that are not in memory: rows of A, one after the other.
func (g *product) roundA(s *scratch, i, rows, p, k int) (a *float32, as, ak int) {
	if n := g.roundedStride(); g.rounded != nil && rows == g.wide.rows {
		return &g.rounded[i*n+(p-g.from)/2], n, 1
	}
	n := g.format.steps(k)
	for r := range g.wide.rows {
		d := s.a[r*n : (r+1)*n]
		switch {
		case r >= rows:
			clear(d)
		case g.format == pairs:
			g.pairs.roundRow(d, g.a[(i+r)*g.as+p:(i+r)*g.as+p+k])
		default:
			swapRow(d, g.a[(i+r)*g.as+p:(i+r)*g.as+p+k])
		}
	}
	return &s.a[0], n, 1
}
