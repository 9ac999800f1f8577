package cpu

//go:noescape
func tile8x8(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)

//go:noescape
func transposeNEON(k int, src *float32, ld int, dst *float32, ds int)

// supported: Advanced SIMD is part of every arm64 that Go runs on.
func supported(l Level) bool { return l == Go || l == NEON }

func kernelsOf(l Level) kernels {
	if l == NEON {
		t := tile{rows: 8, cols: 8, run: tile8x8}
		return kernels{simd: eight, wide: t, narrow: t, transpose: transposer{4, transposeNEON}}
	}
	return kernelsGo()
}
