package lora

import (
	"math"
	"slices"
	"testing"

	"lorad/engine"
)

// TestPhiloxKnownAnswers are the vectors of Random123's kat_vectors for philox4x32 with 10 rounds.
func TestPhiloxKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		key       uint64
		ctr, want [4]uint32
	}{
		{0, [4]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{math.MaxUint64, [4]uint32{math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{0x299f31d0a4093822, [4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		var got [4]uint32
		got[0], got[1], got[2], got[3] = NewPhilox(c.key).At(c.ctr[0], c.ctr[1], c.ctr[2], c.ctr[3])
		if got != c.want {
			t.Errorf("key %x, counter %x: %x, want %x", c.key, c.ctr, got, c.want)
		}
	}
}

func TestInitialValues(t *testing.T) {
	const in, n = 64, 1<<16 + 3
	a, w := make([]float64, n), make([]float64, n)
	InitA(a, in, 1, "some.lora_A.weight")
	InitNormal(w, 0.02, 1, "some.weight")
	bound := 1 / math.Sqrt(in)
	for name, c := range map[string]struct {
		x             []float64
		top, variance float64
	}{"uniform": {a, bound, bound * bound / 3}, "normal": {w, 0.02 * 6, 0.02 * 0.02}} {
		var mean, variance, top float64
		for _, v := range c.x {
			mean, variance, top = mean+v/n, variance+v*v/n, max(top, math.Abs(v))
		}
		if math.Abs(mean) > 4*math.Sqrt(c.variance/n) || math.Abs(variance/c.variance-1) > 0.03 || top > c.top || top < 0.6*c.top {
			t.Errorf("%s: mean %.2g, variance %.3g (want %.3g), largest %.3g (want at most %.3g)", name, mean, variance, c.variance, top, c.top)
		}
	}
	b := make([]float64, 8)
	InitA(b, in, 1, "another.lora_A.weight")
	if b[0] == a[0] {
		t.Error("two tensors start with the same values")
	}
}

func TestDropoutKeepsTheSaidShareAndTheMean(t *testing.T) {
	const n = 1<<18 + 5
	x, y := make([]float32, n), make([]float32, n)
	for i := range x {
		x[i] = 1
	}
	d := NewDropout(0.1, engine.Key{Seed: 1, Step: 2, Micro: 3}, 4)
	mask := make([]uint8, n/8+1)
	d.Draw(0, mask)
	Apply(mask, d.Keep, y, x)
	kept, sum := 0.0, 0.0
	for _, v := range y {
		sum += float64(v)
		if v != 0 {
			kept++
		}
	}
	if math.Abs(kept/n-0.9) > 4*math.Sqrt(0.09/n) || math.Abs(sum/n-1) > 0.005 {
		t.Errorf("kept %.4f, mean %.4f, want 0.9 and 1", kept/n, sum/n)
	}
}

func TestDropoutIsAFunctionOfKeySiteAndElement(t *testing.T) {
	draw := func(k engine.Key, site, first, n int) []uint8 {
		m := make([]uint8, n)
		NewDropout(0.5, k, site).Draw(first, m)
		return m
	}
	base := engine.Key{Seed: 1, Step: 2, Micro: 3}
	whole := draw(base, 4, 0, 64)
	if got := draw(base, 4, 24, 40); string(got) != string(whole[24:]) {
		t.Error("a part of a mask differs from the whole")
	}
	for name, other := range map[string][]uint8{
		"seed":  draw(engine.Key{Seed: 2, Step: 2, Micro: 3}, 4, 0, 64),
		"step":  draw(engine.Key{Seed: 1, Step: 3, Micro: 3}, 4, 0, 64),
		"micro": draw(engine.Key{Seed: 1, Step: 2, Micro: 4}, 4, 0, 64),
		"site":  draw(base, 5, 0, 64),
	} {
		if string(other) == string(whole) {
			t.Errorf("the mask does not depend on the %s", name)
		}
	}
}

// TestNoise: uniform within its bound, the same for the same key, another for every other part of it, and cut anywhere.
func TestNoise(t *testing.T) {
	draw := func(k engine.Key, n, first int) []float64 {
		x := make([]float64, n)
		AddNoise(x, 0.5, k, first)
		return x
	}
	key := engine.Key{Seed: 1, Step: 2, Micro: 3}
	all := draw(key, 40000, 0)
	var sum, squares float64
	for _, v := range all {
		if v < -0.5 || v >= 0.5 {
			t.Fatalf("%v is out of bounds", v)
		}
		sum, squares = sum+v, squares+v*v
	}
	if mean, variance := sum/40000, squares/40000; math.Abs(mean) > 0.005 || math.Abs(variance-1.0/12) > 0.002 {
		t.Errorf("mean %v, variance %v, want 0 and 1/12", mean, variance)
	}
	if !slices.Equal(draw(key, 100, 400), all[400:500]) {
		t.Error("a part differs from the whole")
	}
	for _, other := range []engine.Key{{Seed: 2, Step: 2, Micro: 3}, {Seed: 1, Step: 1, Micro: 3}, {Seed: 1, Step: 2, Micro: 4}} {
		if slices.Equal(draw(other, 100, 0), all[:100]) {
			t.Errorf("key %+v gives the same noise", other)
		}
	}
}

// The assembly draws and applies what the Go code does.
func TestDropoutAgainstTwin(t *testing.T) {
	for _, n := range []int{1, 15, 16, 17, 100, 333} {
		for _, first := range []int{0, 7, 1<<32 - 40, 1<<32 - 5, 1 << 33} {
			d := NewDropout(0.3, engine.Key{Seed: 1 << 40, Step: 5, Micro: 6}, 7)
			got, want := make([]uint8, n), make([]uint8, n)
			d.Draw(first, got)
			d.draw(first, want)
			if string(got) != string(want) {
				t.Errorf("%d draws from %d differ", 8*n, first)
			}
			x := make([]float32, 8*n-3)
			for i := range x {
				x[i] = float32(math.Sin(float64(i)))
			}
			y, z := make([]float32, len(x)), make([]float32, len(x))
			Apply(got, d.Keep, y, x)
			apply(want, d.Keep, z, x)
			for i := range y {
				if math.Float32bits(y[i]) != math.Float32bits(z[i]) {
					t.Fatalf("element %d of %d is %x, want %x", i, len(x), y[i], z[i])
				}
			}
		}
	}
}
