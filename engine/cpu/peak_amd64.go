package cpu

import "golang.org/x/sys/cpu"

//go:noescape
func fma512(n int)

//go:noescape
func dot512(n int)

//go:noescape
func fma256(n int)

//go:noescape
func load256(n int, p *byte)

// peakLoops are the fastest loops of this machine.
func peakLoops() loops {
	var l loops
	switch {
	case supported(AVX512):
		l.f32 = loop{fma512, 2 * 24 * 16}
	case supported(AVX2):
		l.f32 = loop{fma256, 2 * 24 * 8}
	default:
		return tileLoops(Go)
	}
	l.load = load256
	if cpu.X86.HasAVX512BF16 {
		l.bf16 = loop{dot512, 2 * 24 * 32}
	}
	return l
}
