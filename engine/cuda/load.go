package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"lorad/engine/cuda/device"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/engine/quant"
	"lorad/model/safetensors"
)

// loader copies a model's weights to the device. Matrices are rounded to bf16 on the way, unless they are stored so; norms too.
type loader struct {
	*ops
	net    *network
	from   llama.Weights
	stored llama.Stored // from, if it can read a piece at a time
	packer llama.Packer
	stage  device.Ptr // room for the largest of the matrices that have columns of adapters beside them
	room   []byte
	wide   []float32
}

// pieceSize is how many values are on their way at a time.
const pieceSize = 1 << 22

func (l *loader) fail(err error) {
	if l.err == nil && err != nil {
		l.err = err
	}
}

func (l *loader) all(r *resident) error {
	n, h := l.net, l.net.HiddenSize
	l.matrix(r.embed, "model.embed_tokens.weight", n.VocabSize, h)
	if !n.TieEmbeddings {
		l.matrix(r.head, "lm_head.weight", n.VocabSize, h)
	}
	l.zero(r.headAdapter.a.At, 2*int64(n.head.rank)*int64(h))
	l.zero(r.headAdapter.b.At, 2*int64(n.head.rank)*int64(n.VocabSize))
	l.matrix(r.norm, "model.norm.weight", h)
	for i := range n.groups {
		p := fmt.Sprintf("model.layers.%d.", i)
		l.matrix(r.norms[i][0], p+"input_layernorm.weight", h)
		l.matrix(r.norms[i][1], p+"post_attention_layernorm.weight", h)
		if n.QKNorm {
			l.matrix(r.headNorms[i][0], p+"self_attn.q_norm.weight", n.HeadDim)
			l.matrix(r.headNorms[i][1], p+"self_attn.k_norm.weight", n.HeadDim)
		}
		for s := range stages {
			l.group(&n.groups[i][s], &r.groups[i][s])
		}
	}
	return l.take()
}

func (l *loader) group(g *group, w *weights) {
	if g.bias {
		l.zero(w.bias, 2*biasRows*int64(g.out))
	}
	l.around(g, w)
	for i, p := range g.parts {
		if g.bias {
			l.matrix(w.bias+device.Ptr(2*p.row), p.module+".bias", p.out)
		}
		if w.parts == nil {
			l.linear(below(w.dense, p.row), p.module+".weight", p.out, g.in)
		} else {
			l.fourBit(&w.parts[i], p.module+".weight", p.out, g.in)
		}
	}
}

// around makes zeros of what lies around the weight: adapters will fill the most of it.
func (l *loader) around(g *group, w *weights) {
	if g.rank == 0 {
		return
	}
	if w.parts == nil {
		l.zero(w.dense.At, 2*int64(g.out+g.rank)*int64(g.in+g.rank))
		return
	}
	l.zero(w.a.At, 2*int64(g.rank)*int64(g.in))
	l.zero(w.b.At, 2*int64(g.out)*int64(g.rank))
}

// linear loads a weight into its place within a wider one: whole, and from there row by row.
func (l *loader) linear(to device.Matrix, name string, out, in int) {
	if to.LD == in {
		l.matrix(to.At, name, out, in)
		return
	}
	l.matrix(l.stage, name, out, in)
	l.copyMatrix(matrix(l.stage, in), to, out, in)
}

// staged is how many bytes the stage has.
func (n *network) staged() (most int64) {
	for i := range n.groups {
		for _, g := range n.groups[i] {
			for _, p := range g.parts {
				if g.rank > 0 && !n.fourBit {
					most = max(most, 2*int64(p.out)*int64(g.in))
				}
			}
		}
	}
	return most
}

// matrix loads a tensor in bf16.
func (l *loader) matrix(to device.Ptr, name string, shape ...int) {
	if l.err != nil {
		return
	}
	n := 1
	for _, d := range shape {
		n *= d
	}
	if l.stored == nil || l.stored.DType(name) == "" {
		l.whole(to, name, shape, n)
		return
	}
	if l.stored.DType(name) == safetensors.BF16 {
		data, _, got, err := l.stored.Raw(name)
		l.fail(misfit(name, got, shape, err))
		l.upload(to, data)
		return
	}
	for first := 0; first < n && l.err == nil; first += pieceSize {
		x := l.piece(min(pieceSize, n-first))
		l.fail(l.stored.Read(name, first, x))
		l.rounded(to+device.Ptr(2*first), x)
	}
}

// whole loads a tensor that can be had at once only.
func (l *loader) whole(to device.Ptr, name string, shape []int, n int) {
	data, got, err := l.from.Tensor(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; copy the complete model folder", err)
	}
	if l.fail(misfit(name, got, shape, err)); l.err == nil && len(data) != n {
		l.fail(misfit(name, nil, shape, nil))
	}
	l.rounded(to, data)
}

func misfit(name string, got, want []int, err error) error {
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("shape %v, but config.json says %v; the folder mixes two models", got, want)
	}
	if err != nil {
		return fmt.Errorf("cuda: weights: %s: %w", name, err)
	}
	return nil
}

func (l *loader) piece(n int) []float32 {
	if cap(l.wide) < n {
		l.wide = make([]float32, n)
	}
	return l.wide[:n]
}

func (l *loader) rounded(to device.Ptr, x []float32) {
	if l.err != nil {
		return
	}
	if cap(l.room) < 2*len(x) {
		l.room = make([]byte, 2*len(x))
	}
	data := l.room[:2*len(x)]
	for i, v := range x {
		binary.LittleEndian.PutUint16(data[2*i:], kernel.RoundBF16(v))
	}
	l.upload(to, data)
}

// fourBit loads the very codes that the CPU engine computes with.
func (l *loader) fourBit(to *packed, name string, out, in int) {
	if l.err != nil {
		return
	}
	if l.stored == nil {
		l.fail(fmt.Errorf("cuda: weights: %s: these cannot be quantised while they are loaded; open a model folder", name))
		return
	}
	q, err := l.packer.Packed(name, out, in)
	if errors.Is(err, fs.ErrNotExist) && l.packer.As != nil {
		q, err = l.packer.Pack(name, out, in)
	}
	if err != nil {
		l.fail(err)
		return
	}
	if q.Block != quant.Block || (q.Nested != nil) != (to.nested > 0) || q.Nested != nil && q.Nested.Block != to.nested {
		l.fail(fmt.Errorf("cuda: weights: %s: packed in blocks of %d, nested %t: not supported on CUDA; quantise the 16-bit folder with load_in_4bit: true", name, q.Block, q.Nested != nil))
		return
	}
	l.upload(to.codes, q.Codes)
	if q.Nested == nil {
		l.upload(to.absmax, floats(q.Absmax))
		return
	}
	l.upload(to.scales, q.Nested.Codes)
	l.upload(to.absmax, floats(q.Nested.Absmax))
	l.upload(to.table, floats(append(slices.Clone(q.Nested.Map[:]), q.Nested.Offset)))
}

// floats is a copy of x as the device has it.
func floats(x []float32) []byte {
	data := make([]byte, 4*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	return data
}
