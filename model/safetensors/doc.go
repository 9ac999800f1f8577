// Package safetensors reads and writes the safetensors format: an 8-byte little-endian header length, a JSON header that
// places each tensor, and the tensors' bytes without gaps.
//
// A header is trusted for nothing: its length is bounded before it is read, and every offset, shape and product of
// dimensions is checked before a tensor is looked at, so a malformed file is one clear error and never a panic or a huge
// allocation. Tensors are read one by one through io.ReaderAt and widened to f32, which is exact for F32, F16 and BF16.
package safetensors
