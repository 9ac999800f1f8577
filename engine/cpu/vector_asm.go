//go:build amd64 || arm64

package cpu

// See vector.go for what each computes.

//go:noescape
func exp8(n int, dst, src *float32, sub, scale, off float32, lanes *[8]float32)

//go:noescape
func max8(n int, x *float32, lanes *[8]float32)

//go:noescape
func scale8(n int, x *float32, f float32)

//go:noescape
func dot8(n int, x, y *float32, lanes *[8]float32)

//go:noescape
func triple8(n int, x, y, z *float32, lanes *[8]float32)

//go:noescape
func axpy8(n int, a float32, x, y *float32)

//go:noescape
func norm8(n int, y, x, w *float32, s float32)

//go:noescape
func normBackward8(n int, dx, dy, x, w *float32, s, f float32)

//go:noescape
func normWeight8(n int, dw, dy, x *float32, s float32)

//go:noescape
func softmaxBackward8(n int, ds, p *float32, scale, sum float32)

//go:noescape
func swiglu8(n int, h, gate, up *float32)

//go:noescape
func swigluBackward8(n int, dgate, dup, dh, gate, up *float32)

//go:noescape
func rope8(rows, h int, x *float32, ld int, cos, sin *float32, sign float32)

//go:noescape
func copy8(k int, dst, src *float32, ld int)

//go:noescape
func spread(n, w int, dst *float32, step int, src *float32)

//go:noescape
func dots8(n int, x, y *float32, ld int, lanes *[4][8]float32)
