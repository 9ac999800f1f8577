package quant

import "golang.org/x/sys/cpu"

var wide = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL

//go:noescape
func groups32(n int, dst *uint32, ld int, codes *byte, step int, scales, levels *float32)
