package allreduce

import "golang.org/x/sys/cpu"

// vbmi says whether this processor moves bytes within 64-byte registers.
var vbmi = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VBMI

// The assembly does groups > 0 groups of 8 values.

//go:noescape
func packLanes(dst *byte, v *int64, groups int, l *lanes, w int)

//go:noescape
func addLanes(dst, in *int64, src *byte, groups int, l *lanes, w int)

//go:noescape
func packDeltaLanes(dst *byte, x *float32, groups int, l *lanes, w int, base uint32)

//go:noescape
func unpackDeltaLanes(x *float32, src *byte, groups int, l *lanes, w int, base uint32)

//go:noescape
func widthLanes(v *int64, groups int, or, neg *[8]int64)

//go:noescape
func magnitudeLanes(x *float32, groups int, lo, hi *[8]uint32)

//go:noescape
func accumulateLanes(v *int64, grad *float32, groups int, scale, small float64) int

//go:noescape
func roundLanes(grad *float32, sum *int64, groups int, unit float32)

// fastAccumulate is accumulate up to the first group of 8 with a value that is not small.
func fastAccumulate(v []int64, g []float32, scale, small float64) int {
	n := len(g) / 8
	if !vbmi || n == 0 {
		return 0
	}
	return 8 * accumulateLanes(&v[:len(g)][0], &g[0], n, scale, small)
}

// fastRound is round of the first values.
func fastRound(grad []float32, sum []int64, unit float32) int {
	n := len(grad) / 8
	if !vbmi || n == 0 {
		return 0
	}
	roundLanes(&grad[0], &sum[:len(grad)][0], n, unit)
	return 8 * n
}

// fastPack writes the first values of v in w bits each and returns how many: a multiple of 8, and maybe 0. So do the others.
func fastPack(body []byte, v []int64, w uint) int {
	n := groups(len(v), len(body), int(w))
	if !vbmi || n == 0 {
		return 0
	}
	packLanes(&body[0], &v[0], n, &laneTable[w], int(w))
	return 8 * n
}

func fastAdd(dst, in []int64, body []byte, w uint) int {
	n := groups(min(len(dst), len(in)), len(body), int(w))
	if !vbmi || n == 0 {
		return 0
	}
	addLanes(&dst[0], &in[0], &body[0], n, &laneTable[w], int(w))
	return 8 * n
}

func fastPackDelta(body []byte, g []float32, base uint32, w uint) int {
	n := groups(len(g), len(body), int(w))
	if !vbmi || n == 0 {
		return 0
	}
	packDeltaLanes(&body[0], &g[0], n, &laneTable[w], int(w), base)
	return 8 * n
}

func fastUnpackDelta(g []float32, base uint32, body []byte, w uint) int {
	n := groups(len(g), len(body), int(w))
	if !vbmi || n == 0 {
		return 0
	}
	unpackDeltaLanes(&g[0], &body[0], n, &laneTable[w], int(w), base)
	return 8 * n
}

// fastWidth is the or of the first values' magnitudes and of the values, and how many values that were.
func fastWidth(v []int64) (or, neg int64, n int) {
	if n = len(v) / 8; !vbmi || n == 0 {
		return 0, 0, 0
	}
	var ors, negs [8]int64
	widthLanes(&v[0], n, &ors, &negs)
	for i := range ors {
		or, neg = or|ors[i], neg|negs[i]
	}
	return or, neg, 8 * n
}

// fastMagnitudes is magnitudes of the first values, and how many that were.
func fastMagnitudes(g []float32) (lo, hi uint32, n int) {
	lo = 1<<32 - 1
	if n = len(g) / 8; !vbmi || n == 0 {
		return lo, 0, 0
	}
	var los, his [8]uint32
	magnitudeLanes(&g[0], n, &los, &his)
	for i := range los {
		lo, hi = min(lo, los[i]), max(hi, his[i])
	}
	return lo, hi, 8 * n
}
