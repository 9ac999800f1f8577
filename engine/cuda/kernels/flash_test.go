package kernels_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/kernels"
	"lorad/engine/kernel"
)

// flash is one micro-batch's attention, with the padding of its matrices: 8 columns that nothing may touch.
type flash struct {
	kernels.Flash
	starts    []int32
	qkv, dout []uint16 // [rows, ld], [rows, ldo]
}

const flashPad = 8

func (f flash) ld() int  { return (f.Heads+2*f.KVHeads)*f.HeadDim + flashPad }
func (f flash) ldo() int { return f.Heads*f.HeadDim + flashPad }

func newFlash(g gpu, shape kernels.Flash, lengths ...int) flash {
	f := flash{Flash: shape, starts: []int32{0}}
	for _, n := range lengths {
		f.starts = append(f.starts, f.starts[len(f.starts)-1]+int32(n))
	}
	f.Rows, f.Scale = int(f.starts[len(lengths)]), float32(1/math.Sqrt(float64(f.HeadDim)))
	f.Parts = kernels.FlashParts(f.starts) + 3 // a recorded launch has room for more
	f.qkv, f.dout = g.halves(f.Rows*f.ld()), g.halves(f.Rows*f.ldo())
	return f
}

type flashResult struct {
	o, dqkv []uint16
	lse     []float32
}

// run launches forward and backward with results, lse and delta in memory full of NaN.
func (f flash) run(g gpu) flashResult {
	g.Helper()
	list, matrix := put(g, kernels.FlashList(f.starts, f.Parts)), func(p device.Ptr, ld int) device.Matrix { return device.Matrix{At: p, LD: ld, Type: device.BF16} }
	qkv, dout := matrix(put(g, f.qkv), f.ld()), matrix(put(g, f.dout), f.ldo())
	o, dqkv := matrix(g.room(2*f.Rows*f.ldo()), f.ldo()), matrix(g.room(2*f.Rows*f.ld()), f.ld())
	lse, delta := g.room(4*f.Heads*f.Rows), g.room(4*f.Heads*f.Rows)
	g.must(f.Forward(g, list, qkv, o, lse))
	g.must(f.Backward(g, list, qkv, o, dout, lse, delta, dqkv))
	return flashResult{get[uint16](g, o.At, f.Rows*f.ldo()), get[uint16](g, dqkv.At, f.Rows*f.ld()), get[float32](g, lse, f.Heads*f.Rows)}
}

// flashReference is in float64: o [rows, heads*d], lse [heads, rows], dqkv as qkv without padding.
type flashReference struct{ o, lse, dqkv []float64 }

func (f flash) reference() flashReference {
	width := f.ld() - flashPad
	r := flashReference{make([]float64, f.Rows*f.Heads*f.HeadDim), make([]float64, f.Heads*f.Rows), make([]float64, f.Rows*width)}
	for s, begin := range f.starts[:len(f.starts)-1] {
		for row := int(begin); row < int(f.starts[s+1]); row++ {
			for head := range f.Heads {
				f.attend(r, head, row, f.firstKey(int(begin), row))
			}
		}
	}
	return r
}

func (f flash) firstKey(begin, row int) int {
	if f.Window == 0 {
		return begin
	}
	return max(begin, row-f.Window+1)
}

// attend adds one row of one head.
func (f flash) attend(r flashReference, head, row, from int) {
	d, width, scale := f.HeadDim, f.ld()-flashPad, 1/math.Sqrt(float64(f.HeadDim))
	q, k := head*d, (f.Heads+head/(f.Heads/f.KVHeads))*d
	v := k + f.KVHeads*d
	at := func(row, column int) []uint16 { return f.qkv[row*f.ld()+column:][:d] }
	p, sum := make([]float64, row+1), 0.0
	for key := from; key <= row; key++ {
		p[key] = math.Exp(scale * dot(at(row, q), at(key, k)))
		sum += p[key]
	}
	r.lse[head*f.Rows+row] = math.Log(sum)
	o, dout := r.o[row*f.Heads*d+q:][:d], f.dout[row*f.ldo()+q:][:d]
	for key := from; key <= row; key++ {
		p[key] /= sum
		add(o, p[key], at(key, v))
	}
	delta := 0.0
	for i, h := range dout {
		delta += o[i] * float64(kernel.WidenBF16(h))
	}
	for key := from; key <= row; key++ {
		ds := scale * p[key] * (dot(dout, at(key, v)) - delta)
		add(r.dqkv[row*width+q:][:d], ds, at(key, k))
		add(r.dqkv[key*width+k:][:d], ds, at(row, q))
		add(r.dqkv[key*width+v:][:d], p[key], dout)
	}
}

func dot(a, b []uint16) (sum float64) {
	for i, h := range a {
		sum += float64(kernel.WidenBF16(h)) * float64(kernel.WidenBF16(b[i]))
	}
	return sum
}

func add(y []float64, f float64, x []uint16) {
	for i, h := range x {
		y[i] += f * float64(kernel.WidenBF16(h))
	}
}

// check compares with the reference by ||got-want|| / ||want||, and sees that padding columns are as they were.
func (f flash) check(t testing.TB, got flashResult) {
	t.Helper()
	want := f.reference()
	q, kv, width := f.Heads*f.HeadDim, f.KVHeads*f.HeadDim, f.ld()-flashPad
	part := func(x []uint16, ld, from, n int) []float64 { return columns(widen(x), f.Rows, ld, from, n) }
	within(t, "o", part(got.o, f.ldo(), 0, q), columns(want.o, f.Rows, q, 0, q), 5e-3)
	for i, name := range []string{"dq", "dk", "dv"} {
		from, n := []int{0, q, q + kv}[i], []int{q, kv, kv}[i]
		within(t, name, part(got.dqkv, f.ld(), from, n), columns(want.dqkv, f.Rows, width, from, n), 1.5e-2)
	}
	lse := make([]float64, len(got.lse))
	for i, v := range got.lse {
		lse[i] = float64(v)
	}
	within(t, "lse", columns(lse, f.Heads, f.Rows, 0, f.Rows), columns(want.lse, f.Heads, f.Rows, 0, f.Rows), 1e-5)
	for _, x := range append(part(got.o, f.ldo(), q, flashPad), part(got.dqkv, f.ld(), width, flashPad)...) {
		if !math.IsNaN(x) {
			t.Fatalf("a padding column was written: %g", x)
		}
	}
}

func columns(x []float64, rows, ld, from, n int) (y []float64) {
	for r := range rows {
		y = append(y, x[r*ld+from:][:n]...)
	}
	return y
}

func within(t testing.TB, what string, got, want []float64, limit float64) {
	t.Helper()
	var difference, norm float64
	for i, w := range want {
		difference += (got[i] - w) * (got[i] - w)
		norm += w * w
	}
	if e := math.Sqrt(difference / norm); !(e <= limit) {
		t.Errorf("%s: off by %.2e, want at most %g", what, e, limit)
	} else {
		t.Logf("%s: off by %.2e", what, e)
	}
}

func TestFlash(t *testing.T) {
	for _, c := range []struct {
		shape   kernels.Flash
		lengths []int
	}{
		{kernels.Flash{HeadDim: 64, Heads: 1, KVHeads: 1}, []int{1, 2, 63, 64, 65, 127, 129}},
		{kernels.Flash{HeadDim: 128, Heads: 1, KVHeads: 1}, []int{129, 1, 127, 2, 65, 63, 64}},
		{kernels.Flash{HeadDim: 64, Heads: 8, KVHeads: 1}, []int{65, 3}},
		{kernels.Flash{HeadDim: 128, Heads: 8, KVHeads: 1}, []int{2, 33}},
		{kernels.Flash{HeadDim: 64, Heads: 4, KVHeads: 2, Window: 40}, []int{150}},
		{kernels.Flash{HeadDim: 128, Heads: 2, KVHeads: 2, Window: 33}, []int{5, 140}},
		{kernels.Flash{HeadDim: 96, Heads: 4, KVHeads: 2}, []int{65, 2, 130}},
		{kernels.Flash{HeadDim: 96, Heads: 1, KVHeads: 1, Window: 33}, []int{5, 140}},
	} {
		t.Run(fmt.Sprintf("%+v%v", c.shape, c.lengths), func(t *testing.T) {
			g := open(t, orders[len(c.lengths)%len(orders)])
			f := newFlash(g, c.shape, c.lengths...)
			f.check(t, f.run(g))
		})
	}
}

// Every order of threads and blocks gives the same bits, and so does every batch that a sequence is part of.
func TestFlashBitsOfASequence(t *testing.T) {
	for _, d := range []int{64, 96, 128} {
		var alone flashResult
		var one flash
		each(t, func(g gpu) {
			shape := kernels.Flash{HeadDim: d, Heads: 2, KVHeads: 1}
			one = newFlash(g, shape, 70)
			if got := one.run(g); alone.o == nil {
				alone = got
			} else {
				same(t, "o", got.o, alone.o)
				same(t, "dqkv", got.dqkv, alone.dqkv)
				same(t, "lse", got.lse, alone.lse)
			}
		})
		g := open(t, 1)
		batch := newFlash(g, one.Flash, 67, 70, 130)
		copy(batch.qkv[67*batch.ld():], one.qkv)
		copy(batch.dout[67*batch.ldo():], one.dout)
		got := batch.run(g)
		same(t, "o", got.o[67*batch.ldo():], alone.o)
		same(t, "dqkv", got.dqkv[67*batch.ld():], alone.dqkv)
		for head := range batch.Heads {
			same(t, "lse", got.lse[head*batch.Rows+67:], alone.lse[head*70:][:70])
		}
	}
}

// Every row is in exactly one part of each list, which lies in the row's sequence, and the most work comes first.
func TestFlashList(t *testing.T) {
	for _, starts := range [][]int32{{0, 1}, {0, 128, 129, 193, 258}, {0, 1, 2, 3, 4}, {0, 0, 500, 500}} {
		parts := kernels.FlashParts(starts) + 1
		list := kernels.FlashList(starts, parts)
		if len(list) != kernels.FlashListLen(parts) {
			t.Fatalf("%v: a list of %d numbers, want %d", starts, len(list), kernels.FlashListLen(parts))
		}
		coversOnce(t, starts, list[:4*parts], 128, func(begin, end, first int32) int32 { return first - begin })
		coversOnce(t, starts, list[4*parts:], 64, func(begin, end, first int32) int32 { return end - first })
	}
}

func coversOnce(t *testing.T, starts, list []int32, size int32, work func(begin, end, first int32) int32) {
	t.Helper()
	rows := make([]int, starts[len(starts)-1])
	before := int32(math.MaxInt32)
	for p := range slices.Chunk(list, 4) {
		begin, end, first := p[0], p[1], p[2]
		if w := work(begin, end, first); end > 0 && w > before {
			t.Errorf("%v: a part with work %d after one with %d", starts, w, before)
		} else if end > 0 {
			before = w
		}
		for row := first; row < min(first+size, end); row++ {
			rows[row]++
			if i, found := slices.BinarySearch(starts, row+1); starts[i-1] != begin || starts[i] != end && !found {
				t.Errorf("%v: row %d in a part of [%d,%d)", starts, row, begin, end)
			}
		}
	}
	if i := slices.IndexFunc(rows, func(n int) bool { return n != 1 }); i >= 0 {
		t.Errorf("%v: row %d is in %d parts of %d rows", starts, i, rows[i], size)
	}
}
