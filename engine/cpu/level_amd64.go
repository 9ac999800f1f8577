package cpu

import "golang.org/x/sys/cpu"

// supported asks the processor and the operating system (which must save the wide registers).
func supported(l Level) bool {
	switch l {
	case Go:
		return true
	case AVX2:
		return cpu.X86.HasAVX2 && cpu.X86.HasFMA
	case AVX512:
		return supported(AVX2) && cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL
	case AVX512BF16:
		return supported(AVX512) && cpu.X86.HasAVX512BF16
	}
	return false
}

func kernelsOf(l Level) kernels {
	switch l {
	case AVX512BF16:
		k := kernelsOf(AVX512)
		k.pairs = pairKernels{tile: tile{rows: 8, cols: 32, run: tile8x32pairs, one: tile1x32pairs}, round: roundPairs, weave: weavePairs, turn: turnPairs}
		return k
	case AVX512:
		return kernels{simd: sixteen, wide: tile{8, 32, tile8x32, tile1x32}, narrow: tile{8, 16, tile8x16, tile1x16}, tall: tile{16, 16, tile16x16, nil}, transpose: transposer{16, transpose16}}
	case AVX2:
		t := tile{6, 16, tile6x16, tile1x16}
		return kernels{simd: eight, wide: t, narrow: t, transpose: transposer{8, transpose8}}
	}
	return kernelsGo()
}
