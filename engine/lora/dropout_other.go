//go:build !amd64

package lora

const wide = false

func draw16(n int, mask *uint8, first, site, step, key0, key1, threshold uint32) {
	panic("lora: no assembly")
}

func apply16(n int, mask *uint8, factor float32, y, x *float32) { panic("lora: no assembly") }
