//go:build !amd64 && !arm64

package cpu

// No level of these machines sets simd, so none of these is called.

func exp8(n int, dst, src *float32, sub, scale, off float32, lanes *[8]float32) {
	panic("cpu: no assembly")
}

func max8(n int, x *float32, lanes *[8]float32) { panic("cpu: no assembly") }

func scale8(n int, x *float32, f float32) { panic("cpu: no assembly") }

func dot8(n int, x, y *float32, lanes *[8]float32) { panic("cpu: no assembly") }

func triple8(n int, x, y, z *float32, lanes *[8]float32) { panic("cpu: no assembly") }

func axpy8(n int, a float32, x, y *float32) { panic("cpu: no assembly") }

func norm8(n int, y, x, w *float32, s float32) { panic("cpu: no assembly") }

func normBackward8(n int, dx, dy, x, w *float32, s, f float32) { panic("cpu: no assembly") }

func normWeight8(n int, dw, dy, x *float32, s float32) { panic("cpu: no assembly") }

func softmaxBackward8(n int, ds, p *float32, scale, sum float32) { panic("cpu: no assembly") }

func swiglu8(n int, h, gate, up *float32) { panic("cpu: no assembly") }

func swigluBackward8(n int, dgate, dup, dh, gate, up *float32) { panic("cpu: no assembly") }

func rope8(rows, h int, x *float32, ld int, cos, sin *float32, sign float32) {
	panic("cpu: no assembly")
}

func copy8(k int, dst, src *float32, ld int) { panic("cpu: no assembly") }

func spread(n, w int, dst *float32, step int, src *float32) { panic("cpu: no assembly") }

func dots8(n int, x, y *float32, ld int, lanes *[4][8]float32) { panic("cpu: no assembly") }
