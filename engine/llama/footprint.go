package llama

import (
	"lorad/engine/kernel"
	"lorad/model"
)

// Batch is how large micro-batches get: the most rows, the most of them with labels, the longest sequence. They need not be of one batch.
type Batch struct{ Rows, Labelled, Longest int }

// Footprint is the memory of a model and of its steps, in bytes.
type Footprint struct {
	Params     int   // trainable parameters, a number
	Base       int64 // frozen weights
	Layers     int   // layers with a backward pass
	Layer      int64 // what each of them keeps for it
	Input      int64 // what it keeps if the rest is computed again
	Step       int64 // all other buffers of a step
	Recomputed int   // layers that are computed again to fit into the budget
}

// Activations is all memory of a step.
func (f Footprint) Activations() int64 {
	return f.Step + int64(f.Layers-f.Recomputed)*f.Layer + int64(f.Recomputed)*f.Input
}

// Fit chooses how many layers are computed again so that all activations fit into so many bytes, if that can be.
func (f Footprint) Fit(budget int64) Footprint {
	f.Recomputed = recomputed(f.Layers, f.Layer, f.Input, budget-f.Step)
	return f
}

// Measure is what New and Prepare would take, without any weights: the buffers are counted by the code that takes them.
func Measure(cfg model.Config, ad Adapter, threads int, largest Batch) (Footprint, error) {
	b, err := declared(cfg, ad)
	if err != nil {
		return Footprint{}, err
	}
	m := b.m
	m.lowest, m.sites = m.lowestTrainable(), b.targets
	f := Footprint{Params: b.size, Layers: len(m.layers) - m.lowest}
	f.Layer, f.Input = m.layerBytes(largest.Rows)
	m.count = &f.Step
	m.Prepare(largest, 1<<62)
	f.Step -= int64(f.Layers) * f.Layer
	f.Step += int64(threads) * int64(2*queryBlock*largest.Longest) * 4 // scores
	f.Step += m.rounded(largest, ad.Precision)
	if !ad.Full {
		f.Base = baseBytes(cfg, ad)
	}
	return f, nil
}

// rounded is where products in bf16 put their rounded activations, if C has more than two slabs of 512 columns: so many blocks of 512 numbers of each row
// of an input, or of the gradients of a chunk of logits, as fit into 4 MiB.
func (m *Model[T]) rounded(largest Batch, precision kernel.Precision) int64 {
	if precision != kernel.BF16 || m.cfg.HiddenSize <= 1024 {
		return 0
	}
	all := 2 * max(largest.Rows*m.widest(), min(m.headChunk(), largest.Labelled)*m.cfg.VocabSize)
	return int64(min(all, max(4<<20, 2*512*largest.Rows)))
}

// Prepare takes the memory for steps of micro-batches up to that size. Layers whose activations have no room in the budget (bytes) keep
// their input only, and are computed again in the backward pass: a third more work, the same bits.
func (m *Model[T]) Prepare(largest Batch, budget int64) {
	m.exact, m.budget = true, budget
	m.buf.drops = m.dropout > 0
	m.reserve(largest.Rows, true)
	m.reserveHead(largest.Labelled)
	m.buf.drops = false
}

// stripWidth is what rows of a frozen weight are padded to.
const stripWidth = 32

// baseBytes is the memory of a frozen base: BaseBytes before there is one.
func baseBytes(cfg model.Config, ad Adapter) (all int64) {
	compact := ad.FourBit != nil || cfg.FourBit
	half := ad.Precision == kernel.BF16
	for _, t := range cfg.Tensors() {
		rows, n := t.Shape[0], int64(1)
		for _, d := range t.Shape {
			n *= int64(d)
		}
		table := t.Name == embedName
		head := t.Name == "lm_head.weight" || table && cfg.TieEmbeddings
		switch {
		case len(t.Shape) == 1:
			all += 4 * n
		case compact && head && half:
			all += paddedBytes(n, rows, true)
		case compact && (head || table):
			all += 2 * n
		case compact:
			all += fourBitBytes(n, ad.FourBit == nil || ad.FourBit.Nested)
		case table && !cfg.TieEmbeddings && (half || cfg.DType == "bfloat16" || cfg.DType == "float16"):
			all += 2 * n
		case table && !cfg.TieEmbeddings:
			all += 4 * n
		default:
			all += paddedBytes(n, rows, half)
		}
	}
	return all
}

// paddedBytes is the memory of a frozen weight of n values in strips.
func paddedBytes(n int64, rows int, half bool) int64 {
	words := n / int64(rows)
	if half {
		words = (words + 1) / 2
	}
	return 4 * words * int64((rows+stripWidth-1)/stripWidth*stripWidth)
}

// fourBitBytes: half a byte a value, and a scale per block of 64, which takes 8 bits itself with double quantisation, and 4 bytes per 256 of them.
func fourBitBytes(n int64, nested bool) int64 {
	blocks := (n + 63) / 64
	if !nested {
		return (n+1)/2 + 4*blocks
	}
	return (n+1)/2 + blocks + 4*((blocks+255)/256) + 4*256 + 4
}
