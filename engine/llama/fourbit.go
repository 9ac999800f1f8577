package llama

import (
	"errors"
	"fmt"
	"slices"

	"lorad/engine/quant"
	"lorad/model"
	"lorad/model/safetensors"
)

// Packer gives the weights of linear layers in NF4: as a folder has packed them, or packed while they are read.
type Packer struct {
	From     Stored
	As       *FourBit // how to pack; nil: only what is packed already
	Parallel func(n int, f func(i int))

	room   []float32     // a piece of a weight on its way to NF4
	finder *quant.Finder // of nested scales
}

// Packed is a weight that the folder has in NF4; fs.ErrNotExist if it has not.
func (l *Packer) Packed(name string, out, in int) (*quant.NF4, error) {
	p, err := l.From.Packed(name)
	if err != nil {
		return nil, fmt.Errorf("llama: weights: %w", err)
	}
	q, err := unpacked(p, out, in)
	if err != nil {
		return nil, fmt.Errorf("llama: weights: %s: shape %v, want [%d %d]: %w", name, p.Shape, out, in, errors.Join(err, errPacked))
	}
	return q, nil
}

func unpacked(p model.Packed, out, in int) (*quant.NF4, error) {
	q := &quant.NF4{N: out * in, Block: p.Block, Codes: p.Codes, Absmax: p.Absmax, Round: roundings[p.DType]}
	if s := p.Nested; s != nil {
		q.Absmax, q.Nested = nil, &quant.Nested{Codes: s.Codes, Block: s.Block, Absmax: s.Absmax, Offset: s.Offset}
		if copy(q.Nested.Map[:], s.Map) != len(q.Nested.Map) {
			return nil, fmt.Errorf("nested_quant_map has %d values, want 256", len(s.Map))
		}
	}
	if !slices.Equal(p.Shape, []int{out, in}) {
		return nil, errPacked
	}
	return q, q.Check()
}

var errPacked = errors.New("the packed weight does not fit config.json; copy the complete model folder")

var roundings = map[string]quant.Rounding{"bfloat16": quant.BF16, "float16": quant.F16}

// Pack reads a weight and packs it, a piece at a time.
func (l *Packer) Pack(name string, out, in int) (*quant.NF4, error) {
	round := map[safetensors.DType]quant.Rounding{safetensors.BF16: quant.BF16, safetensors.F16: quant.F16}[l.From.DType(name)]
	q := quant.NewNF4(out*in, round)
	for first := 0; first < q.N; first += pieceSize {
		x := l.piece(min(pieceSize, q.N-first))
		if err := l.From.Read(name, first, x); err != nil {
			return nil, fmt.Errorf("llama: weights: %w", err)
		}
		const part = 256 * quant.Block
		l.Parallel((len(x)+part-1)/part, func(i int) {
			q.Encode(first+i*part, x[i*part:min((i+1)*part, len(x))])
		})
	}
	if l.As.Nested {
		if l.finder == nil {
			l.finder = quant.NewFinder(quant.DynamicMap(true))
		}
		q.Nest(l.finder)
	}
	return q, nil
}

// piece is room for n values, used again and again.
func (l *Packer) piece(n int) []float32 {
	if cap(l.room) < n {
		l.room = make([]float32, n)
	}
	return l.room[:n]
}
