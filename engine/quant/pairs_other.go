//go:build !amd64

package quant

const wide = false

func groups32(n int, dst *uint32, ld int, codes *byte, step int, scales, levels *float32) {
	panic("quant: no assembly")
}
