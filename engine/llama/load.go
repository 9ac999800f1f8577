package llama

import (
	"encoding/binary"
	"fmt"

	"lorad/engine/kernel"
	"lorad/model/safetensors"
)

// embedName is the table of tokens, which is also the head if the two are tied.
const embedName = "model.embed_tokens.weight"

// frozen loads the weight of a linear layer in the form that its products want.
func (b *builder[T]) frozen(name string, out, in int) kernel.Frozen[T] {
	if f := b.compact(name, out, in); f != nil {
		return f
	}
	if from, ok := b.from.(Stored); ok && from.DType(name) != "" {
		s := &streamed[T]{from: from, name: name, rows: out, cols: in}
		f := b.m.ops.Freeze(s, b.ad.Precision)
		if b.found++; s.err != nil {
			b.fail(fmt.Errorf("llama: weights: %w", s.err))
		}
		return f
	}
	if data := b.read(name, []int{out, in}); data != nil {
		return b.m.ops.Freeze(kernel.Dense[T]{Rows: out, Cols: in, Data: data}, b.ad.Precision)
	}
	return nil
}

// streamed is a weight in a file, which is read where it is asked for: so a weight is never in memory beside its packed form. Only
// Freeze reads it, which has no errors to return, so the first is kept.
type streamed[T kernel.Float] struct {
	from       Stored
	name       string
	rows, cols int
	err        error
}

func (s *streamed[T]) Shape() (rows, cols int) { return s.rows, s.cols }

func (s *streamed[T]) Unpack(r0, r1, c0, c1 int, dst []T, ld int) {
	if wide, same := any(dst).([]float32); same && c1-c0 == s.cols && ld == s.cols {
		s.read(wide[:(r1-r0)*s.cols], r0*s.cols)
		return
	}
	row := make([]float32, c1-c0)
	for r := r0; r < r1; r++ {
		s.read(row, r*s.cols+c0)
		for i, v := range row {
			dst[(r-r0)*ld+i] = T(v)
		}
	}
}

func (s *streamed[T]) read(dst []float32, first int) {
	if err := s.from.Read(s.name, first, dst); err != nil && s.err == nil {
		s.err = err
	}
}

// untied loads the table of a model whose head is another: as it is stored if that is 16 bits a value, in bf16 if products are, else in f32.
func (b *builder[T]) untied(out, in int) {
	from, stored := b.from.(Stored)
	switch m := b.m; {
	case stored && from.DType(embedName) != "" && from.DType(embedName).Size() == 2:
		m.table = b.half(from, embedName, out, in)
	case b.ad.Precision == kernel.BF16:
		if data := b.read(embedName, []int{out, in}); data != nil {
			m.table = m.ops.Keep(sixteen[T]{narrow(data), safetensors.BF16, out, in}, kernel.BF16)
		}
	default:
		m.embed.data = b.read(embedName, []int{out, in})
	}
}

// narrow rounds to bf16.
func narrow[T kernel.Float](x []T) []byte {
	data := make([]byte, 2*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint16(data[2*i:], kernel.RoundBF16(float32(v)))
	}
	return data
}
