package kernels_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/kernels"
)

// decoding is a cache and one new row of each sequence. Positions that no sequence has are NaN.
type decoding struct {
	kernels.Decode
	seen       []int32
	qkv, cache []uint16
}

func newDecoding(g gpu, shape kernels.Decode, seen ...int32) decoding {
	c := decoding{Decode: shape, seen: seen}
	c.Sequences, c.Scale = len(seen), float32(1/math.Sqrt(float64(c.HeadDim)))
	c.qkv, c.cache = g.halves(len(seen)*c.ld()), slices.Repeat([]uint16{0x7fff}, len(seen)*c.Capacity*c.width())
	for s, n := range seen {
		copy(c.cache[s*c.Capacity*c.width():], g.halves(max(0, int(n)-1)*c.width()))
	}
	return c
}

func (c decoding) width() int { return 2 * c.KVHeads * c.HeadDim }
func (c decoding) ld() int    { return c.Heads*c.HeadDim + c.width() + 8 }
func (c decoding) ldo() int   { return c.Heads*c.HeadDim + 8 }

// run brings the new rows into the cache and attends.
func (c decoding) run(g gpu) []uint16 {
	g.Helper()
	place := make([]int32, c.Sequences)
	for s, n := range c.seen {
		place[s] = int32(s*c.Capacity) + n - 1
		if n == 0 {
			place[s] = -1
		}
	}
	sums, statistics := c.Scratch()
	bf16 := func(p device.Ptr, ld int) device.Matrix { return device.Matrix{At: p, LD: ld, Type: device.BF16} }
	qkv, o, cache := bf16(put(g, c.qkv), c.ld()), bf16(g.room(2*c.Sequences*c.ldo()), c.ldo()), put(g, c.cache)
	g.must(c.Store(g, qkv, put(g, place), cache, c.Sequences))
	g.must(c.Attend(g, qkv, cache, put(g, c.seen), g.room(4*sums), g.room(4*statistics), o))
	return get[uint16](g, o.At, c.Sequences*c.ldo())
}

// key is where the keys of a head at a position of a sequence are; its values are KVHeads*HeadDim beyond.
func (c decoding) key(sequence, position, head int) []uint16 {
	row := c.cache[(sequence*c.Capacity+position)*c.width():]
	if position == int(c.seen[sequence])-1 {
		row = c.qkv[sequence*c.ld()+c.Heads*c.HeadDim:]
	}
	return row[head/(c.Heads/c.KVHeads)*c.HeadDim:]
}

// reference is o in float64, without padding.
func (c decoding) reference() []float64 {
	d := c.HeadDim
	o := make([]float64, c.Sequences*c.Heads*d)
	for s, n := range c.seen {
		from := 0
		if c.Window > 0 {
			from = max(0, int(n)-c.Window)
		}
		for h := range c.Heads {
			sum, out := 0.0, o[(s*c.Heads+h)*d:][:d]
			for j := from; j < int(n); j++ {
				p := math.Exp(dot(c.qkv[s*c.ld()+h*d:][:d], c.key(s, j, h)) / math.Sqrt(float64(d)))
				sum += p
				add(out, p, c.key(s, j, h)[c.KVHeads*d:][:d])
			}
			for i := range out {
				out[i] /= max(sum, 1e-30)
			}
		}
	}
	return o
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		shape kernels.Decode
		seen  []int32
	}{
		{kernels.Decode{HeadDim: 64, Heads: 4, KVHeads: 2, Capacity: 600}, []int32{1, 0, 64, 65, 256, 257, 600}},
		{kernels.Decode{HeadDim: 128, Heads: 3, KVHeads: 1, Capacity: 300}, []int32{300, 17}},
		{kernels.Decode{HeadDim: 96, Heads: 4, KVHeads: 2, Capacity: 300}, []int32{290, 17}},
		{kernels.Decode{HeadDim: 64, Heads: 20, KVHeads: 1, Capacity: 64}, []int32{40}},
		{kernels.Decode{HeadDim: 64, Heads: 2, KVHeads: 2, Window: 70, Capacity: 600}, []int32{600, 70, 71, 330, 3}},
		{kernels.Decode{HeadDim: 128, Heads: 2, KVHeads: 1, Window: 1, Capacity: 512}, []int32{513 - 1, 257}},
	} {
		var want []uint16
		t.Run(fmt.Sprint(c.shape), func(t *testing.T) {
			each(t, func(g gpu) {
				d := newDecoding(g, c.shape, c.seen...)
				got := d.run(g)
				n := d.Heads * d.HeadDim
				within(t, "o", columns(widen(got), d.Sequences, d.ldo(), 0, n), d.reference(), 5e-3)
				for _, x := range columns(widen(got), d.Sequences, d.ldo(), n, 8) {
					if !math.IsNaN(x) {
						t.Fatalf("a padding column was written: %g", x)
					}
				}
				if want != nil {
					same(t, "in another order", got, want)
				}
				want = got
				alone := d
				alone.Sequences, alone.seen, alone.qkv, alone.cache = 1, d.seen[:1], d.qkv[:d.ld()], nil
				alone.Capacity += 300
				alone.cache = append(slices.Clone(d.cache[:d.Capacity*d.width()]), slices.Repeat([]uint16{0x7fff}, 300*d.width())...)
				same(t, "alone, with more room", alone.run(g)[:n], got[:n])
			})
		})
	}
}

func TestArgmax(t *testing.T) {
	each(t, func(g gpu) {
		for _, c := range []struct{ rows, n, threads int }{{3, 1000, 256}, {2, 5, 32}, {1, 97, 64}} {
			x, want := g.floats(c.rows*c.n), make([]int32, c.rows)
			for r := range want {
				row := x[r*c.n : (r+1)*c.n]
				row[c.n-1], row[c.n/2] = 9, 9 // of two the first
				want[r] = int32(slices.Index(row, slices.Max(row)))
			}
			best := g.room(4 * c.rows)
			g.run("argmax", c.rows+1, c.threads, put(g, x), best, c.rows, c.n)
			same(t, fmt.Sprint(c), get[int32](g, best, c.rows), want)
		}
	})
}
