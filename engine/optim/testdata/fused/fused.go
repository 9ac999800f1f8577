// Package fused is the control of TestNoFusedMultiplyAdd: an expression that Go does fuse.
package fused

// Axpy is a*x + y, open to fusion.
func Axpy(a, x, y float32) float32 { return a*x + y }
