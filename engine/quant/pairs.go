package quant

// GroupLen is how many values Groups decodes at a time. They share a scale, for no block is shorter.
const GroupLen = 32

// Groups decodes groups of 32 values to bf16, two neighbours in a word, the first in the lower half: group i is the values from first+i*step on,
// and is written to dst[i*ld:]. first and step are multiples of 32. It is false, and nothing is written, where there is no assembly for it:
// without AVX-512, and for values that are rounded to f16 on the way. Subnormal numbers stay what they are.
//
// The scale times all sixteen levels, rounded, is a table in a register; a permutation then looks up 32 codes at once.
func (q *NF4) Groups(first, count, step int, dst []uint32, ld int) bool {
	if !wide || q.Round == F16 || first%GroupLen != 0 || step%GroupLen != 0 {
		return false
	}
	var scales [64]float32
	for i := 0; i < count; i += len(scales) {
		n, at := min(len(scales), count-i), first+i*step
		for g := range n {
			scales[g] = q.scale((at + g*step) / q.Block)
		}
		_, _ = dst[(i+n-1)*ld+GroupLen/2-1], q.Codes[(at+(n-1)*step)/2+GroupLen/2-1] // assembly would not notice
		groups32(n, &dst[i*ld], ld, &q.Codes[at/2], step/2, &scales[0], &levels[0])
	}
	return true
}
