package kernels

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"lorad/engine/cuda/device"
)

// Flash launches the attention kernels of one shape: causal attention over micro-batches of up to Rows tokens, which are up to Sequences sequences one
// after the other.
//
// The grids depend on the shape alone, so a recorded launch serves every such micro-batch. What a batch's sequences are is in a list in device
// memory: ListBytes bytes for both kinds of kernels, filled by List and uploaded before each batch. All matrices are bf16 with addresses at multiples of
// 16 bytes and leading dimensions at multiples of 8 elements; qkv and its gradient hold Heads*HeadDim queries, then KVHeads*HeadDim keys, then values in a row;
// lse and delta are f32 [Heads, Rows]. The bits of a sequence's results do not depend on the rest of its batch.
type Flash struct {
	HeadDim   int // 64 or 128
	Heads     int // of queries; a multiple of KVHeads
	KVHeads   int
	Window    int // how many keys a query sees, itself included (Mistral's sliding window); 0: all from its sequence's beginning
	Rows      int
	Sequences int
}

// What one block works on.
const (
	queryPart = 128 // rows in flash_forward and flash_backward_q
	keyPart   = 64  // in flash_backward_kv
	partBytes = 16  // begin, end, first, 0
)

// Check says whether there are kernels for the shape.
func (f Flash) Check() error {
	switch {
	case f.HeadDim != 64 && f.HeadDim != 128:
		return fmt.Errorf("flash attention: head dimension %d is not supported: only 64 and 128 are; train this model on the CPU", f.HeadDim)
	case f.KVHeads <= 0 || f.Heads%f.KVHeads != 0:
		return fmt.Errorf("flash attention: %d heads do not divide among %d key/value heads", f.Heads, f.KVHeads)
	case f.Rows <= 0 || f.Rows > math.MaxInt32/f.Heads || f.keyParts() > 65535:
		return fmt.Errorf("flash attention: a micro-batch of %d rows in %d sequences is out of range: take a smaller one", f.Rows, f.Sequences)
	}
	return nil
}

func (f Flash) queryParts() int { return f.most(queryPart) }
func (f Flash) keyParts() int   { return f.most(keyPart) }

// most is how many parts there can be: each sequence, and what is left behind the last, may have one that is not full.
func (f Flash) most(part int) int { return (f.Rows + (f.Sequences+1)*(part-1)) / part }

// ListBytes is the size of the list.
func (f Flash) ListBytes() int { return partBytes * (f.queryParts() + f.keyParts()) }

// List is the list of a batch whose sequence i has the rows starts[i] to starts[i+1], starts[0] being 0: first the parts for the kernels that walk over
// the keys, then those for the one that walks over the queries, each with the most work first. Rows behind the last sequence are treated as short
// sequences of their own, so that every row of every result is written; what they hold must be finite.
func (f Flash) List(starts []int32) ([]int32, error) {
	if len(starts) < 1 || len(starts)-1 > f.Sequences || starts[0] != 0 || int(starts[len(starts)-1]) > f.Rows || !slices.IsSorted(starts) {
		return nil, fmt.Errorf("flash attention: the sequences' starts are not 0 ... %d in order for at most %d sequences: %v", f.Rows, f.Sequences, starts)
	}
	starts = slices.Clone(starts)
	for last := starts[len(starts)-1]; int(last) < f.Rows; starts = append(starts, last) {
		last = min(last+queryPart, int32(f.Rows))
	}
	list := make([]int32, 0, f.ListBytes()/4)
	list = write(list, parts(starts, queryPart, func(p part) int32 { return p.first - p.begin }), f.queryParts())
	list = write(list, parts(starts, keyPart, func(p part) int32 { return p.end - p.first }), f.keyParts())
	return list, nil
}

type part struct{ begin, end, first int32 }

// parts cuts each sequence into parts of `size` rows and puts those with the most work first.
func parts(starts []int32, size int32, work func(part) int32) (all []part) {
	for i, begin := range starts[:len(starts)-1] {
		for first := begin; first < starts[i+1]; first += size {
			all = append(all, part{begin, starts[i+1], first})
		}
	}
	slices.SortStableFunc(all, func(a, b part) int { return cmp.Compare(work(b), work(a)) })
	return all
}

// write appends parts, and empty ones up to n.
func write(list []int32, all []part, n int) []int32 {
	for _, p := range all {
		list = append(list, p.begin, p.end, p.first, 0)
	}
	return append(list, make([]int32, 4*(n-len(all)))...)
}

// Forward launches o = attention(qkv) and lse; o is [Rows, Heads*HeadDim].
func (f Flash) Forward(d device.Device, list device.Ptr, qkv, o device.Matrix, lse device.Ptr) error {
	return d.Launch(f.kernel("forward"), f.grid(f.Heads, f.queryParts(), 128, f.forwardShared()),
		qkv.At, qkv.LD, list, o.At, o.LD, lse, f.Rows, f.Heads, f.KVHeads, f.scale(), f.Window)
}

// Backward launches the gradient of qkv from that of o, dout. delta is scratch.
func (f Flash) Backward(d device.Device, list device.Ptr, qkv, o, dout device.Matrix, lse, delta device.Ptr, dqkv device.Matrix) error {
	rows := device.Grid{Blocks: [3]int{(f.Rows*f.Heads + 3) / 4}, Threads: 128}
	if err := d.Launch("flash_delta", rows, o.At, o.LD, dout.At, dout.LD, delta, f.Rows, f.Heads, f.HeadDim); err != nil {
		return err
	}
	threads := 2 * f.HeadDim // four warps of 32 rows, or eight of 16
	if err := f.backward(d, "backward_q", f.grid(f.Heads, f.queryParts(), threads, f.backwardQShared()), list, qkv, dout, lse, delta, dqkv); err != nil {
		return err
	}
	keys := list + device.Ptr(partBytes*f.queryParts())
	return f.backward(d, "backward_kv", f.grid(f.KVHeads, f.keyParts(), 128, f.backwardKVShared()), keys, qkv, dout, lse, delta, dqkv)
}

func (f Flash) backward(d device.Device, name string, g device.Grid, list device.Ptr, qkv, dout device.Matrix, lse, delta device.Ptr, dqkv device.Matrix) error {
	return d.Launch(f.kernel(name), g, qkv.At, qkv.LD, list, dout.At, dout.LD, lse, delta, dqkv.At, dqkv.LD, f.Rows, f.Heads, f.KVHeads, f.scale(), f.Window)
}

func (f Flash) kernel(name string) string { return fmt.Sprintf("flash_%s_d%d", name, f.HeadDim) }

func (f Flash) grid(heads, parts, threads, shared int) device.Grid {
	return device.Grid{Blocks: [3]int{heads, parts}, Threads: threads, Shared: shared}
}

func (f Flash) scale() float32 { return float32(1 / math.Sqrt(float64(f.HeadDim))) }

// The kernels' shared memory in bytes: the block's own rows, and two stages of tiles.
func (f Flash) forwardShared() int    { return f.rowBytes(queryPart + 2*2*f.tile()) }
func (f Flash) backwardQShared() int  { return f.rowBytes(2*queryPart + 2*2*f.tile()) }
func (f Flash) backwardKVShared() int { return f.rowBytes(2*keyPart+2*2*f.tile()) + 2*2*4*f.tile() }

func (f Flash) rowBytes(rows int) int { return 2 * f.HeadDim * rows }

// tile is the rows of a tile that a block walks over: 8 KiB of them.
func (f Flash) tile() int { return 4096 / f.HeadDim }
