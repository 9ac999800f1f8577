package cpu

// The same for sixteen lanes. See vector.go for what each computes.

//go:noescape
func exp16(n int, dst, src *float32, sub, scale, off float32, lanes *[8]float32)

//go:noescape
func max16(n int, x *float32) float32

//go:noescape
func swiglu16(n int, h, gate, up *float32)

//go:noescape
func swigluBackward16(n int, dgate, dup, dh, gate, up *float32)
