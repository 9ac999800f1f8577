package kernels

import (
	"cmp"
	"fmt"
	"slices"

	"lorad/engine/cuda/device"
)

// Flash launches the attention kernels of one shape: causal attention over a micro-batch of Rows tokens, which are sequences one after the other.
//
// The grids depend on the shape alone, so a recorded launch serves every micro-batch whose sequences have no more than Parts parts (FlashParts). Which
// sequences they are is in a list in device memory, FlashList, uploaded before each batch. All matrices are bf16 with addresses at multiples
// of 16 bytes and leading dimensions at multiples of 8 elements; qkv and its gradient hold Heads*HeadDim queries, then KVHeads*HeadDim keys, then as
// many values in a row; lse and delta are f32 [Heads, Rows]. The bits of a sequence's results do not depend on the rest of its batch.
type Flash struct {
	HeadDim int // 64, 96 or 128
	Heads   int // of queries; a multiple of KVHeads
	KVHeads int
	Window  int     // how many keys a query sees, itself included (Mistral's sliding window); 0: all from its sequence's beginning
	Scale   float32 // of the scores; positive
	Rows    int
	Parts   int // up to 32767
}

// What one block works on.
const (
	queryPart = 128 // rows in flash_forward and flash_backward_q
	keyPart   = 64  // in flash_backward_kv: two for each of the others at the most
)

// FlashParts is how many parts sequences have; sequence i has the rows starts[i] to starts[i+1].
func FlashParts(starts []int32) (n int) {
	for i, begin := range starts[:len(starts)-1] {
		n += int(starts[i+1]-begin+queryPart-1) / queryPart
	}
	return n
}

// FlashListLen is the length of a list.
func FlashListLen(parts int) int { return 3 * 4 * parts }

// FlashList is the list of a batch whose sequences cover all rows and have no more than `parts` parts: first the parts for the kernels that walk over the
// keys, then those for the one that walks over the queries, each with the most work first, so that the last blocks are short. Rows without meaning
// belong into short sequences of their own; what they hold must be finite.
func FlashList(starts []int32, parts int) []int32 {
	list := make([]int32, 0, FlashListLen(parts))
	list = write(list, cut(starts, queryPart, func(p part) int32 { return p.first - p.begin }), parts)
	return write(list, cut(starts, keyPart, func(p part) int32 { return p.end - p.first }), 2*parts)
}

type part struct{ begin, end, first int32 }

// cut makes parts of `size` rows and puts those with the most work first.
func cut(starts []int32, size int32, work func(part) int32) (all []part) {
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
	return d.Launch(f.kernel("forward"), f.grid(f.Heads, f.Parts, 128, f.forwardShared()),
		qkv.At, qkv.LD, list, o.At, o.LD, lse, f.Rows, f.Heads, f.KVHeads, f.Scale, f.Window)
}

// Backward launches the gradient of qkv from that of o, dout. delta is scratch.
func (f Flash) Backward(d device.Device, list device.Ptr, qkv, o, dout device.Matrix, lse, delta device.Ptr, dqkv device.Matrix) error {
	warps := device.Grid{Blocks: [3]int{(f.Rows*f.Heads + 3) / 4}, Threads: 128} // one for each row of a head
	if err := d.Launch("flash_delta", warps, o.At, o.LD, dout.At, dout.LD, delta, f.Rows, f.Heads, f.HeadDim); err != nil {
		return err
	}
	backward := func(name string, g device.Grid, list device.Ptr) error {
		return d.Launch(f.kernel(name), g, qkv.At, qkv.LD, list, dout.At, dout.LD, lse, delta, dqkv.At, dqkv.LD, f.Rows, f.Heads, f.KVHeads, f.Scale, f.Window)
	}
	threads := 2 * f.width() // four warps of 32 rows, or eight of 16
	if err := backward("backward_q", f.grid(f.Heads, f.Parts, threads, f.backwardQShared()), list); err != nil {
		return err
	}
	return backward("backward_kv", f.grid(f.KVHeads, 2*f.Parts, 128, f.backwardKVShared()), list+device.Ptr(4*4*f.Parts))
}

func (f Flash) kernel(name string) string { return fmt.Sprintf("flash_%s_d%d", name, f.HeadDim) }

func (f Flash) grid(heads, parts, threads, shared int) device.Grid {
	return device.Grid{Blocks: [3]int{heads, parts}, Threads: threads, Shared: shared}
}

// The kernels' shared memory in bytes: the block's own rows, and two stages of two tiles.
func (f Flash) forwardShared() int    { return f.rowBytes(queryPart + 2*2*f.tile()) }
func (f Flash) backwardQShared() int  { return f.rowBytes(2*queryPart + 2*2*f.tile()) }
func (f Flash) backwardKVShared() int { return f.rowBytes(2*keyPart+2*2*f.tile()) + 2*2*4*f.tile() }

func (f Flash) rowBytes(rows int) int { return 2 * f.width() * rows }

// tile is the rows of a tile that a block walks over: 8 KiB of them.
func (f Flash) tile() int { return 4096 / f.width() }

func (f Flash) width() int { return rowWidth(f.HeadDim) }

// rowWidth is the columns that a tile has room for: heads of 96 are computed like those of 128, but for the columns that they do not have.
func rowWidth(headDim int) int {
	if headDim > 64 {
		return 128
	}
	return 64
}
