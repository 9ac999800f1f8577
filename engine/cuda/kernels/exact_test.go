package kernels_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/engine/kernel"
	"lorad/engine/lora"
	"lorad/engine/optim"
	"lorad/engine/quant"
)

// What must have the processor's bits has them.

func TestDropoutDrawsAsTheProcessor(t *testing.T) {
	const rows, n, ld, first = 999, 136, 152, 3 // so many that some draws are the threshold itself
	each(t, func(g gpu) {
		for _, p := range []float32{0, 0.05, 0.5, 1} {
			key := engine.Key{Seed: 0x123456789abcdef0, Step: 77, Micro: 5}
			wide, sums := g.halves(rows*ld), g.halves(rows*ld)
			x, before := inner(wide, rows, n, ld), inner(sums, rows, n, ld)
			drop, mask := lora.NewDropout(float64(p), key, 42), make([]uint8, rows*n/8)
			drop.Draw(first*n/8, mask)
			kept := make([]float32, rows*n)
			for i, h := range x {
				kept[i] = kernel.WidenBF16(h)
			}
			lora.Apply(mask, drop.Keep, kept, kept)
			want, sum := make([]uint16, rows*n), make([]uint16, rows*n)
			for i, v := range kept {
				want[i], sum[i] = kernel.RoundBF16(v), kernel.RoundBF16(kernel.WidenBF16(before[i])+v)
			}
			mixed := put(g, []uint64{key.Seed ^ uint64(key.Micro)*0x9E3779B97F4A7C15, uint64(key.Step)})
			in, y := put(g, x), put(g, sums)
			g.run("dropout_add", 2, 32, y, ld, in, rows, n, p, mixed, 42, first)
			same(t, fmt.Sprintf("p=%g, added", p), inner(get[uint16](g, y, rows*ld), rows, n, ld), sum)
			g.run("dropout", 2, 32, put(g, wide), ld, in, rows, n, p, mixed, 42, first)
			same(t, fmt.Sprintf("p=%g", p), get[uint16](g, in, rows*n), want)
		}
	})
}

func TestNF4(t *testing.T) {
	const rows, cols, ld = 37, 600, 616 // 22200 weights in 347 blocks: the last one is short, and so is the last group of scales
	each(t, func(g gpu) {
		w := g.halves(rows * cols)
		clear(w[128:192]) // a block of zeros
		x := make([]float32, len(w))
		for i, h := range w {
			x[i] = kernel.WidenBF16(h)
		}
		q := quant.NewNF4(len(x), quant.BF16)
		q.Encode(0, x)
		codes, absmax := g.room(len(q.Codes)), g.room(4*len(q.Absmax))
		g.run("nf4_quantise", 3, 64, put(g, w), codes, absmax, len(w))
		same(t, "codes", get[byte](g, codes, len(q.Codes)), q.Codes)
		same(t, "scales", get[float32](g, absmax, len(q.Absmax)), q.Absmax)
		dequantise(g, q, codes, absmax, 0, 0, 0, rows, cols, ld)
		nest(g, q, codes, absmax, rows, cols, ld)
	})
}

// nest puts the scales into eight bits, here and there.
func nest(g gpu, q *quant.NF4, codes, absmax device.Ptr, rows, cols, ld int) {
	n := len(q.Absmax)
	q.Nest(quant.NewFinder(quant.DynamicMap(true)))
	s := q.Nested
	table := put(g, append(slices.Clone(s.Map[:]), s.Offset))
	scales, of := g.room(n), g.room(4*len(s.Absmax))
	g.run("nf4_nest", len(s.Absmax), 256, absmax, s.Offset, table, scales, of, n)
	same(g, "codes of scales", get[byte](g, scales, n), s.Codes)
	same(g, "scales of scales", get[float32](g, of, len(s.Absmax)), s.Absmax)
	dequantise(g, q, codes, of, scales, table, s.Block, rows, cols, ld)
}

func dequantise(g gpu, q *quant.NF4, codes, absmax, scales, table device.Ptr, nested, rows, cols, ld int) {
	want := make([]float32, rows*cols)
	q.Decode(want, 0)
	w := g.room(2 * rows * ld)
	g.run("nf4_dequantise", 5, 64, codes, absmax, scales, table, nested, w, rows, cols, ld)
	got := get[uint16](g, w, rows*ld)
	for r := range rows {
		for c := range cols {
			if v := kernel.WidenBF16(got[r*ld+c]); v != want[r*cols+c] {
				g.Fatalf("nested in %d: weight %d, %d is %g, want %g", nested, r, c, v, want[r*cols+c])
			}
		}
	}
}

func TestAdamW(t *testing.T) {
	const n, lr = 1003, 1e-3
	rule := optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1}
	each(t, func(g gpu) {
		p, want := g.floats(n), optim.NewPlain(rule, []optim.Part{{Len: n, Rate: 1}})
		at, m, v := put(g, p), put(g, make([]float32, n)), put(g, make([]float32, n))
		for step := 1; step <= 3; step++ {
			grad := g.floats(n)
			want.Step(p, grad, lr, step)
			rate := float64(float32(lr))
			g.run("adamw", 3, 64, at, put(g, grad), m, v, n, float32(1-float64(rate*0.1)), float32(rate/(1-math.Pow(0.9, float64(step)))),
				float32(math.Sqrt(1-math.Pow(0.999, float64(step)))), float32(1-0.9), float32(0.999), float32(1-0.999), float32(1e-8))
			same(t, fmt.Sprintf("parameters after step %d", step), get[float32](g, at, n), p)
		}
		var moments []float32
		want.Visit(func(x []float32) { moments = append(moments, x...) }, nil)
		same(t, "moments", append(get[float32](g, m, n), get[float32](g, v, n)...), moments)
	})
}

func TestAdamW8(t *testing.T) {
	const n, blocks, lr = 5003, 20, 1e-3
	rule := optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1}
	signed, unsigned := quant.DynamicMap(true), quant.DynamicMap(false)
	each(t, func(g gpu) {
		p, want := g.floats(n), optim.NewEightBit(rule, []optim.Part{{Len: n, Rate: 1}})
		at, codes := put(g, p), []device.Ptr{put(g, make([]byte, n)), put(g, make([]byte, n))}
		scales := []device.Ptr{put(g, make([]float32, blocks)), put(g, make([]float32, blocks))}
		maps := []device.Ptr{put(g, signed[:]), put(g, unsigned[:])}
		for step := 1; step <= 3; step++ {
			grad := g.floats(n)
			clear(grad[512:768]) // a block without moments
			grad[3], grad[300] = float32(math.NaN()), float32(math.Inf(1))
			want.Step(p, grad, lr, step)
			b1, b2, rate := float32(0.9), float32(0.999), float32(lr)
			c1, c2 := 1-math.Pow(float64(b1), float64(step)), math.Sqrt(1-math.Pow(float64(b2), float64(step)))
			g.run("adamw8", blocks, 256, at, put(g, grad), codes[0], scales[0], codes[1], scales[1], maps[0], maps[1], n, b1, b2, 1-b1, 1-b2,
				float32(float64(-float64(rate)*c2)/c1), float32(c2*float64(rule.Eps)), 1-float32(rate*rule.WeightDecay))
			same(t, fmt.Sprintf("parameters after step %d", step), get[float32](g, at, n), p)
		}
		i := 0
		want.Visit(func(x []float32) {
			if len(x) > 0 {
				same(t, "scales", get[float32](g, scales[i/2], blocks), x)
			}
			i++
		}, func(x []byte) {
			same(t, "codes", get[byte](g, codes[i/2], n), x)
			i++
		})
	})
}

func TestGradientNorm(t *testing.T) {
	const n, blocks = 12345, 5
	var bits []float64
	each(t, func(g gpu) {
		x := g.floats(n)
		partial, root := g.room(8*blocks), g.room(8)
		g.run("square_sum", blocks, 256, put(g, x), partial, n)
		g.run("norm", 1, 1, partial, root, blocks)
		got := get[float64](g, root, 1)
		near(t, "norm", got, []float64{optim.GlobalNorm(x)}, 1e-14)
		bits = append(bits, got[0])
		same(t, "norm in another order of threads", got, bits[:1])
	})
}

// The rules are allreduce.Accum's, which engines do not import: rounded to the nearest multiple of the unit, ties to even; a micro-batch with a value
// that is not below 2^62/micros units counts as nothing.
func TestFixedPoint(t *testing.T) {
	const n, micros, unit = 1001, 3, -40
	units := make([]int8, n)
	for i := range units {
		units[i] = int8(-40 + i%60)
	}
	each(t, func(g gpu) {
		for name, own := range map[string][]int8{"one unit": nil, "own units": units} {
			sum, want := put(g, make([]int64, n)), make([]int64, n)
			var at device.Ptr
			if own != nil {
				at = put(g, own)
			}
			for _, last := range []float32{1, float32(math.NaN()), 0x1p45, 0x1p20} {
				x := g.floats(n)
				x[480] = 1.5 * 0x1p-40 // halfway between two multiples
				x[n-1] = last
				q, trapped := inUnits(x, unit, own, 0x1p62/micros)
				for i := range want {
					want[i] += q[i]
				}
				flag, in := put(g, []int32{0}), put(g, x)
				g.run("check_range", 2, 32, in, at, unit, put(g, []int32{micros}), flag, n)
				g.run("to_fixed", 2, 32, in, at, unit, flag, sum, n)
				if got := get[int32](g, flag, 1)[0] != 0; got != trapped {
					t.Fatalf("%s: %g: trapped: %v, want %v", name, last, got, trapped)
				}
			}
			g.run("to_fixed", 2, 32, put(g, g.floats(n)), at, unit, put(g, []int32{1}), sum, n)
			same(t, name, get[int64](g, sum, n), want)
			x := g.floats(n)
			q, _ := inUnits(x, unit, own, 0x1p62)
			for i := range want {
				want[i] += q[i]
			}
			g.run("to_fixed", 2, 32, put(g, x), at, unit, device.Ptr(0), sum, n)
			same(t, name+", without a flag", get[int64](g, sum, n), want)
		}
	})
}

func inUnits(x []float32, unit int, units []int8, limit float64) (q []int64, trapped bool) {
	q = make([]int64, len(x))
	for i, v := range x {
		if units != nil {
			unit = int(units[i])
		}
		u := math.RoundToEven(math.Ldexp(float64(v), -unit))
		if !(math.Abs(u) < limit) {
			return make([]int64, len(x)), true
		}
		q[i] = int64(u)
	}
	return q, false
}
