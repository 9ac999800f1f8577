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
		b.streamed(s)
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
	if stored = stored && from.DType(embedName) != ""; stored && from.DType(embedName).Size() == 2 {
		b.m.table = b.half(from, embedName, out, in)
		return
	}
	if b.ad.Precision == kernel.F32 {
		b.m.embed.data = b.read(embedName, []int{out, in})
		return
	}
	var src kernel.Matrix[T] = &streamed[T]{from: from, name: embedName, rows: out, cols: in}
	if !stored {
		data := b.read(embedName, []int{out, in})
		if data == nil {
			return
		}
		src = kernel.Dense[T]{Rows: out, Cols: in, Data: data}
	}
	b.m.table = b.m.ops.Keep(sixteen[T]{narrow(src), safetensors.BF16, out, in}, kernel.BF16)
	if s, ok := src.(*streamed[T]); ok {
		b.streamed(s)
	}
}

// streamed notes that a weight was found, and what went wrong with it.
func (b *builder[T]) streamed(s *streamed[T]) {
	if b.found++; s.err != nil {
		b.fail(fmt.Errorf("llama: weights: %w", s.err))
	}
}

// narrow rounds to bf16.
func narrow[T kernel.Float](m kernel.Matrix[T]) []byte {
	rows, cols := m.Shape()
	data, row := make([]byte, 2*rows*cols), make([]T, cols)
	for r := range rows {
		m.Unpack(r, r+1, 0, cols, row, cols)
		for i, v := range row {
			binary.LittleEndian.PutUint16(data[2*(r*cols+i):], kernel.RoundBF16(float32(v)))
		}
	}
	return data
}
