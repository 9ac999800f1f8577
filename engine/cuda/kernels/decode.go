package kernels

import (
	"fmt"

	"lorad/engine/cuda/device"
)

// Decode launches attention for one new row of each of some sequences, against a cache of the keys and values of the rows before it.
//
// The cache is bf16 [Sequences*Capacity, 2*KVHeads*HeadDim]: of each position its turned keys and its values, as they lie in a row of qkv. seen is
// i32 [Sequences], how many positions each has, the new one included; 0 is no sequence, whose output is zeros. So one recorded launch serves all
// lengths up to Capacity. A sequence's bits depend on nothing but its own row and cache.
type Decode struct {
	HeadDim   int // 64, 96 or 128
	Heads     int // of queries; a multiple of KVHeads
	KVHeads   int
	Window    int     // how many keys a query sees, itself included; 0: all
	Scale     float32 // of the scores; positive
	Sequences int
	Capacity  int // positions
}

// What one block works on, and how many of them leave a result of their own.
const (
	decodeSpan  = 256 // keys
	decodeWarps = 4
	decodeHeads = 16 // that share their keys
	decodeTile  = 64
)

func (c Decode) spans() int { return (c.Capacity + decodeSpan - 1) / decodeSpan }
func (c Decode) parts() int { return decodeWarps * c.spans() }

// Scratch is how many f32 a launch needs: sums, and statistics of them.
func (c Decode) Scratch() (sums, statistics int) {
	rows := c.Sequences * c.Heads * c.parts()
	return rows * c.HeadDim, 2 * rows
}

// Store launches the copy of k and v of some rows of qkv into the cache, each to the row that place [rows] says, none for -1.
func (c Decode) Store(d device.Device, qkv device.Matrix, place, cache device.Ptr, rows int) error {
	width := 2 * c.KVHeads * c.HeadDim
	grid := device.Grid{Blocks: [3]int{rows}, Threads: min(256, (width/8+31)/32*32)}
	return d.Launch("cache_rows", grid, qkv.At+device.Ptr(2*c.Heads*c.HeadDim), qkv.LD, place, cache, rows, width)
}

// Attend launches o[Sequences, Heads*HeadDim] = attention of the rows of qkv.
func (c Decode) Attend(d device.Device, qkv device.Matrix, cache, seen, sums, statistics device.Ptr, o device.Matrix) error {
	groups := (c.Heads/c.KVHeads + decodeHeads - 1) / decodeHeads
	shared := 2 * rowWidth(c.HeadDim) * (decodeHeads + 2*2*decodeTile) // queries, and two stages of keys and values
	grid := device.Grid{Blocks: [3]int{c.KVHeads * groups, c.Sequences, c.spans()}, Threads: 32 * decodeWarps, Shared: shared}
	if err := d.Launch(fmt.Sprintf("flash_decode_d%d", c.HeadDim), grid, qkv.At, qkv.LD, cache, seen, sums, statistics, c.Capacity, c.Heads, c.KVHeads, c.Scale, c.Window); err != nil {
		return err
	}
	warps := device.Grid{Blocks: [3]int{(c.Sequences*c.Heads + 3) / 4}, Threads: 4 * 32}
	return d.Launch("flash_decode_sum", warps, sums, statistics, seen, o.At, o.LD, c.Sequences, c.Heads, c.HeadDim, c.parts(), c.Window)
}
