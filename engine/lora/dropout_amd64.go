package lora

import "golang.org/x/sys/cpu"

// wide says whether the assembly of dropout_amd64.s may be used. It computes what the Go code does, sixteen draws or elements at a time.
var wide = cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW

//go:noescape
func draw16(n int, mask *uint8, first, site, step, key0, key1, threshold uint32)

//go:noescape
func apply16(n int, mask *uint8, factor float32, y, x *float32)
