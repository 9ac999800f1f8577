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
	use            use
}

// use is what a pass is for.
type use uint8

const (
	whole  use = iota // sequences that nothing is kept of
	prompt            // the beginning of a sequence, whose keys and values the cache keeps
	next              // one row of each of many sequences that the cache has the beginning of
)

// inputs is where a pass finds what differs between micro-batches: one block, so that one copy brings it.
type inputs struct {
	scale, key  device.Ptr // f32; the key of dropout: see lora.NewDropout
	micros      device.Ptr // i32: see sum.pack
	skip        device.Ptr // i32: nothing to round
	ids, pos    device.Ptr // [rows] i32
	index, want device.Ptr // [labelled] i32: rows that carry loss, -1 beyond them, and their labels
	parts       device.Ptr // kernels.FlashList
	place, seen device.Ptr // [rows] i32, but for whole sequences: see kernels.Decode
	bytes       int64
}

// Offsets of the block's head.
const (
	scaleAt  = 0
	keyAt    = 8
	microsAt = 24
	skipAt   = 28
)

func (s shape) inputs(base device.Ptr) (in inputs) {
	c := carver{base: base}
	in.scale = c.bytes(64)
	in.key, in.micros, in.skip = in.scale+keyAt, in.scale+microsAt, in.scale+skipAt
	in.ids, in.pos = c.f32(s.rows), c.f32(s.rows)
	in.index, in.want = c.f32(s.labelled), c.f32(s.labelled)
	in.parts = c.f32(kernels.FlashListLen(s.parts))
	if s.use != whole {
		in.place, in.seen = c.f32(s.rows), c.f32(s.rows)
	}
	in.bytes = c.used
	return in
}

// inputBytes is the most that micro-batches up to a size need: as many sequences as rows.
func inputBytes(s size) int64 {
	return shape{s.rows, s.labelled, partsBucket(s.rows), prompt}.inputs(0).bytes
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
	places []int32 // of the first rows, in the cache: -1 for none
	past   []int32 // next: how many positions came before a row; -1: it is no sequence's
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
	// over
	turns := func(sequence int32) int32 { // the first position of the table that a sequence turns by
		if p.net.longer(int(sequence)) {
			return int32(positions)
		}
		return 0
	}
	if p.use != whole {
		p.packPlaces(put, turns)
	}
	if p.use == next {
		return
	}
	for i, begin := range p.starts[:len(p.starts)-1] {
		end := p.starts[i+1]
		for row := begin; row < end; row++ {
			put(in.pos, int(row), turns(end-begin)+row-begin)
		}
	}
	for i, v := range kernels.FlashList(p.starts, p.parts) {
		put(in.parts, i, v)
	}
}

// packPlaces writes where the rows' keys and values go, and the positions of rows that continue a sequence.
func (p *batch) packPlaces(put func(at device.Ptr, i int, v int32), turns func(sequence int32) int32) {
	in := p.shape.inputs(0)
	for i := range p.rows {
		place := int32(-1)
		if i < len(p.places) {
			place = p.places[i]
		}
		put(in.place, i, place)
	}
	for i, n := range p.past {
		if n >= 0 {
			put(in.pos, i, turns(n+1)+n)
			put(in.seen, i, n+1)
		}
	}
}
