package llama

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"lorad/engine/kernel"
	"lorad/engine/quant"
	"lorad/model"
	"lorad/model/safetensors"
)

// Stored is Weights that know how they are stored: model.Folder. Compact weights are loaded from it piece by piece, so that no more is ever in
// memory than the compact model and one piece.
type Stored interface {
	Weights
	// Read reads values first .. first+len(dst) of a tensor.
	Read(name string, first int, dst []float32) error
	// Raw reads a tensor as it is stored.
	Raw(name string) (data []byte, d safetensors.DType, shape []int, err error)
	DType(name string) safetensors.DType
	// Packed reads a weight that is stored in NF4; fs.ErrNotExist if it is not.
	Packed(name string) (model.Packed, error)
}

// FourBit asks for linear layers, but for the head, in NF4: QLoRA's frozen base. The embedding and the head stay in the 16 bits they are
// stored in, and are widened where they are used; norms and biases are f32. That is what PEFT's prepare_model_for_kbit_training computes with.
type FourBit struct {
	Nested bool // double quantisation
}

// pieceSize is how many values are in memory as f32 while a weight is quantised; a multiple of a block.
const pieceSize = 1 << 20

// compact loads the weight of a linear layer in its compact form; nil if it is to be loaded as it is.
func (b *builder[T]) compact(name string, out, in int) kernel.Frozen[T] {
	from, ok := b.from.(Stored)
	if !ok {
		if b.ad.FourBit != nil {
			b.fail(fmt.Errorf("llama: weights: %s: these cannot be quantised while they are loaded; open a model folder", name))
		}
		return nil
	}
	if b.packer.From == nil {
		b.packer = Packer{From: from, As: b.ad.FourBit, Parallel: b.m.ops.Parallel}
	}
	q, err := b.packer.Packed(name, out, in)
	head := name == "lm_head.weight" || name == "model.embed_tokens.weight"
	switch {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		b.fail(err)
		return nil
	case b.ad.FourBit == nil && !b.m.cfg.FourBit || from.DType(name) == "":
		return nil
	case head && b.ad.Precision == kernel.BF16:
		return nil // frozen lays it out in the same 16 bits, as the products want them
	case head || b.ad.FourBit == nil:
		return b.half(from, name, out, in)
	default:
		if q, err = b.packer.Pack(name, out, in); err != nil {
			b.fail(err)
			return nil
		}
	}
	b.found++
	return b.m.ops.Keep(fourBit[T]{q, out, in}, b.ad.Precision)
}

// half keeps a weight as it is stored, if that is 16 bits a value.
func (b *builder[T]) half(from Stored, name string, out, in int) kernel.Frozen[T] {
	if from.DType(name).Size() != 2 {
		return nil
	}
	data, d, shape, err := from.Raw(name)
	if err != nil || !slices.Equal(shape, []int{out, in}) {
		b.fail(fmt.Errorf("llama: weights: %s: shape %v, want [%d %d]: %w", name, shape, out, in, errors.Join(err, errPacked)))
		return nil
	}
	b.found++
	return b.m.ops.Keep(sixteen[T]{data, d, out, in}, b.ad.Precision)
}

// fourBit is an NF4 matrix for the products of a frozen weight.
type fourBit[T kernel.Float] struct {
	q       *quant.NF4
	out, in int
}

func (m fourBit[T]) Shape() (rows, cols int) { return m.out, m.in }
func (m fourBit[T]) Bytes() int              { return int(m.q.Bytes()) }

func (m fourBit[T]) Unpack(r0, r1, c0, c1 int, dst []T, ld int) {
	unpack(r0, r1, c0, c1, dst, ld, func(x []float32, row, col int) { m.q.Decode(x, row*m.in+col) })
}

// UnpackPairs decodes groups of codes: all columns of one row after the other, or if these are one group, of all rows together.
func (m fourBit[T]) UnpackPairs(r0, r1, c0, c1 int, dst []uint32, ld int) bool {
	n := c1 - c0
	if m.in%quant.GroupLen != 0 || c0%quant.GroupLen != 0 || n%quant.GroupLen != 0 {
		return false
	}
	if n == quant.GroupLen {
		return m.q.Groups(r0*m.in+c0, r1-r0, m.in, dst, ld)
	}
	for r := r0; r < r1; r++ {
		if !m.q.Groups(r*m.in+c0, n/quant.GroupLen, quant.GroupLen, dst[(r-r0)*ld:], quant.GroupLen/2) {
			return false
		}
	}
	return true
}

// sixteen is a matrix of bf16 or f16.
type sixteen[T kernel.Float] struct {
	data    []byte
	d       safetensors.DType
	out, in int
}

func (m sixteen[T]) Shape() (rows, cols int) { return m.out, m.in }
func (m sixteen[T]) Bytes() int              { return len(m.data) }

func (m sixteen[T]) Unpack(r0, r1, c0, c1 int, dst []T, ld int) {
	unpack(r0, r1, c0, c1, dst, ld, func(x []float32, row, col int) { safetensors.Widen(x, m.data[2*(row*m.in+col):], m.d) })
}

// unpack writes a block of a matrix row by row: in place for f32, through a copy for f64, which only tests use.
func unpack[T kernel.Float](r0, r1, c0, c1 int, dst []T, ld int, row func(x []float32, row, col int)) {
	wide, same := any(dst).([]float32)
	if !same {
		wide = make([]float32, c1-c0)
	}
	for r := r0; r < r1; r++ {
		at := (r - r0) * ld
		if same {
			row(wide[at:at+c1-c0], r, c0)
			continue
		}
		row(wide, r, c0)
		for i, v := range wide {
			dst[at+i] = T(v)
		}
	}
}
