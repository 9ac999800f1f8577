package cuda

import (
	"encoding/binary"
	"fmt"
	"math"

	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/engine/cuda/kernels"
	"lorad/engine/llama"
)

// shape is what recorded work follows from. All else that differs between micro-batches lies in device memory.
type shape struct {
	rows, labelled int // rounded up
	parts          int // of sequences, for attention
}

// inputs is where a pass finds what differs between micro-batches: one block, so that one copy brings it.
type inputs struct {
	scale, key  device.Ptr // f32; the key of dropout: see lora.NewDropout
	ids, pos    device.Ptr // [rows] i32
	index, want device.Ptr // [labelled] i32: rows that carry loss, -1 beyond them, and their labels
	parts       device.Ptr // kernels.FlashList
	bytes       int64
}

// Offsets of the block's head.
const (
	scaleAt = 0
	keyAt   = 8
)

func (s shape) inputs(base device.Ptr) (in inputs) {
	c := carver{base: base}
	in.scale = c.bytes(64)
	in.key = in.scale + keyAt
	in.ids, in.pos = c.f32(s.rows), c.f32(s.rows)
	in.index, in.want = c.f32(s.labelled), c.f32(s.labelled)
	in.parts = c.f32(kernels.FlashListLen(s.parts))
	in.bytes = c.used
	return in
}

// inputBytes is the most that micro-batches up to a size need: as many sequences as rows.
func inputBytes(s size) int64 {
	return shape{s.rows, s.labelled, partsBucket(s.rows)}.inputs(0).bytes
}

func partsBucket(n int) int {
	b := 16
	for b < n {
		b *= 2
	}
	return b
}

// batch is a micro-batch that has been checked, padded to its shape: the rows beyond its own are a sequence of their own, without labels, whose
// gradients are all zeros.
type batch struct {
	shape
	net    *network
	size   size
	starts []int32
	index  []int32 // rows with labels
	tokens []int32
	labels []int32
}

// newBatch checks a batch: everything that is used as an index is in range afterwards.
func (n *network) newBatch(b engine.Batch) (*batch, error) {
	rows := len(b.Tokens)
	if len(b.Labels) != rows || len(b.Starts) == 0 || b.Starts[0] != 0 || int(b.Starts[len(b.Starts)-1]) != rows {
		return nil, fmt.Errorf("cuda: batch: %d tokens, %d labels, starts %v: these do not fit together", rows, len(b.Labels), b.Starts)
	}
	p := &batch{net: n, starts: b.Starts, tokens: b.Tokens, labels: b.Labels}
	longest := 0
	for i, s := range b.Starts[1:] {
		if s <= b.Starts[i] {
			return nil, fmt.Errorf("cuda: batch: sequence %d has no tokens; drop empty examples", i)
		}
		longest = max(longest, int(s-b.Starts[i]))
	}
	for i, t := range b.Tokens {
		l := b.Labels[i]
		if t < 0 || int(t) >= n.VocabSize || l != engine.Ignore && (l < 0 || int(l) >= n.VocabSize) {
			return nil, fmt.Errorf("cuda: batch: row %d: token %d, label %d: the vocabulary has %d; use the model's own tokenizer", i, t, l, n.VocabSize)
		}
		if l != engine.Ignore {
			p.index = append(p.index, int32(i))
		}
	}
	p.pad(llama.Batch{Rows: rows, Labelled: len(p.index), Longest: longest})
	return p, nil
}

func (p *batch) pad(b llama.Batch) {
	p.size = sizeOf(b)
	if p.rows, p.labelled = p.size.rows, p.size.labelled; p.rows > b.Rows {
		p.starts = append(append([]int32(nil), p.starts...), int32(p.rows))
	}
	p.parts = partsBucket(kernels.FlashParts(p.starts))
}

// pack writes the block that inputs describes. The second table of rotations, if there is one, follows the first one's positions.
func (p *batch) pack(block []byte, scale float32, key engine.Key, positions int) {
	in := p.shape.inputs(0)
	clear(block[:in.bytes])
	binary.LittleEndian.PutUint32(block[scaleAt:], math.Float32bits(scale))
	binary.LittleEndian.PutUint64(block[keyAt:], key.Seed^uint64(key.Micro)*0x9E3779B97F4A7C15)
	binary.LittleEndian.PutUint64(block[keyAt+8:], uint64(key.Step))
	put := func(at device.Ptr, i int, v int32) { binary.LittleEndian.PutUint32(block[int(at)+4*i:], uint32(v)) }
	for i, t := range p.tokens {
		put(in.ids, i, t)
	}
	for i := range p.labelled {
		row, label := int32(-1), int32(engine.Ignore)
		if i < len(p.index) {
			row, label = p.index[i], p.labels[p.index[i]]
		}
		put(in.index, i, row)
		put(in.want, i, label)
	}
	for i, begin := range p.starts[:len(p.starts)-1] {
		end, first := p.starts[i+1], int32(0)
		if p.net.longer(int(end - begin)) {
			first = int32(positions)
		}
		for row := begin; row < end; row++ {
			put(in.pos, int(row), first+row-begin)
		}
	}
	for i, v := range kernels.FlashList(p.starts, p.parts) {
		put(in.parts, i, v)
	}
}
