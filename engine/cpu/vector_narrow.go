//go:build !amd64

package cpu

// No level of these machines sets simd to sixteen, so none of these is called.

func exp16(n int, dst, src *float32, sub, scale, off float32, lanes *[8]float32) {
	panic("cpu: no assembly")
}

func max16(n int, x *float32) float32 { panic("cpu: no assembly") }

func swiglu16(n int, h, gate, up *float32) { panic("cpu: no assembly") }

func swigluBackward16(n int, dgate, dup, dh, gate, up *float32) { panic("cpu: no assembly") }
