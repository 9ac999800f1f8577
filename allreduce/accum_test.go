package allreduce

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestQuantise compares single values with the exact oracle, ties included.
func TestQuantise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.IntRange(-62, 0).Draw(t, "unit")
		x := rapid.Float32().Draw(t, "x")
		if rapid.Bool().Draw(t, "near a tie") {
			x = float32(math.Ldexp(float64(rapid.IntRange(-4000, 4000).Draw(t, "halves")), unit-1))
		}
		a := NewAccum(1, 3, unit)
		if err := a.Add(1, []float32{x}, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		want := nearest(float64(x), unit)
		if in := want.CmpAbs(nearest(a.limit, 0)) < 0; in != (*a.counter(1) == 1) {
			t.Fatalf("%v units: in range %v, counter %x", want, in, *a.counter(1))
		} else if in && a.v[0] != want.Int64() {
			t.Fatalf("%v in units of 2^%d: got %d, want %v", x, unit, a.v[0], want)
		}
	})
}

// TestTrap: a poisoned micro-batch leaves the sum as if it had contributed zeros, and every member names it.
func TestTrap(t *testing.T) {
	inf := float32(math.Inf(1))
	poison := map[string]func(m *micro){
		"NaN":           func(m *micro) { m.g[2999] = float32(math.NaN()) },
		"infinity":      func(m *micro) { m.g[0] = -inf },
		"overflow":      func(m *micro) { m.g[1500] = float32(math.Ldexp(1, 22)) / 4 }, // 2^62/4 units of 2^-40
		"loss NaN":      func(m *micro) { m.loss = math.NaN() },
		"loss overflow": func(m *micro) { m.loss = 1e18 },
	}
	for name, spoil := range poison {
		t.Run(name, func(t *testing.T) {
			ms := randomMicros(5, 3000, 4)
			clean := slices.Clone(ms)
			clean[2] = micro{g: make([]float32, 3000)}
			want, loss := bigSum(clean, -40)
			spoil(&ms[2])
			groups := groupOf(3, nil)
			defer closeAll(groups)
			sums, errs := reduceAll(groups, testOp(1), share(5, ms, 3, -40))
			for r, s := range sums {
				if errs[r] != nil || !slices.Equal(s.Bad, []int{2}) || !sameBits(s.Grad, want) || s.Loss != loss {
					t.Errorf("member %d: error %v, bad %v, loss %v", r, errs[r], s.Bad, s.Loss)
				}
			}
		})
	}
}

// TestLargestSum: micro-batches just below the limit cannot overflow together.
func TestLargestSum(t *testing.T) {
	const micros = 4
	x := math.Nextafter32(float32(math.Ldexp(1, 20)), 0) // below 2^62/4 units of 2^-40
	a, out := NewAccum(2, micros, -40), Sum{}
	for mb := range micros {
		if err := a.Add(mb, []float32{x, -x}, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	groups := groupOf(1, nil)
	defer closeAll(groups)
	if _, err := groups[0].Reduce(t.Context(), testOp(1), a, &out); err != nil || len(out.Bad) > 0 || out.Grad[0] != 4*x || out.Grad[1] != -4*x {
		t.Fatalf("%v %+v, want %v", err, out, 4*x)
	}
}

// TestCoverage: a micro-batch that is missing or counted twice is found by every member, by number, and the
// group goes on.
func TestCoverage(t *testing.T) {
	ms := randomMicros(9, 100, 5)
	groups := groupOf(3, nil)
	defer closeAll(groups)
	accs := share(9, ms, 3, -40)
	for _, a := range accs { // one more member computes micro-batch 3
		if !a.Has(3) {
			_ = a.Add(3, ms[3].g, 0, 0, 0)
			break
		}
	}
	for _, a := range accs { // whoever had micro-batch 1 forgets it
		*a.counter(1) = 0
	}
	_, errs := reduceAll(groups, testOp(1), accs)
	for r, err := range errs {
		var ce *CoverageError
		if !errors.As(err, &ce) || !slices.Equal(ce.Missing, []int{1}) || !slices.Equal(ce.Repeated, []int{3}) {
			t.Errorf("member %d: %v", r, err)
		}
	}
	if _, errs := reduceAll(groups, testOp(2), share(9, ms, 3, -40)); errors.Join(errs...) != nil {
		t.Error(errs)
	}
}

// TestAddTwice: a repeated micro-batch changes nothing; Reset and Bitmap agree with Has.
func TestAddTwice(t *testing.T) {
	a := NewAccum(1, 10, -40)
	for range 2 {
		if err := a.Add(9, []float32{1}, 2, 3, 4); err != nil {
			t.Fatal(err)
		}
	}
	if a.v[0] != 1<<40 || a.v[1+slotLoss] != 2<<30 || a.v[1+slotTokens] != 3 || a.v[1+slotTotal] != 4 || *a.counter(9) != 1 {
		t.Fatal(a.v)
	}
	if b := a.Bitmap(nil); !a.Has(9) || a.Has(8) || a.Has(-1) || a.Has(10) || !slices.Equal(b, []byte{0, 2}) {
		t.Fatal(b)
	}
	if a.Reset(); a.Has(9) || !a.Blank() || a.gradient()[0] != 0 {
		t.Fatal("reset kept something")
	}
}

// TestShortStep: a step may have fewer micro-batches than the one before; nothing of that one shows through.
func TestShortStep(t *testing.T) {
	groups := groupOf(2, nil)
	defer closeAll(groups)
	accs := [2]*Accum{NewAccum(3, 6, -40), NewAccum(3, 6, -40)}
	for step, micros := range []int{6, 2, 5, 1, 6} {
		var sums [2]Sum
		together(groups, func(r int, g *Group) {
			accs[r].ResetFor(micros)
			for mb := r; mb < micros; mb += 2 {
				if err := accs[r].Add(mb, []float32{1, 2, float32(mb)}, 1, 1, 1); err != nil {
					t.Error(err)
				}
			}
			if _, err := g.Reduce(t.Context(), testOp(uint64(step)), accs[r], &sums[r]); err != nil {
				t.Error(err)
			}
		})
		m := float32(micros)
		if want := []float32{m, 2 * m, m * (m - 1) / 2}; !slices.Equal(sums[0].Grad, want) || sums[1].Tokens != int64(micros) {
			t.Fatalf("step %d: %+v, want %v", step, sums, want)
		}
		if err := accs[0].Add(micros, []float32{0, 0, 0}, 0, 0, 0); err == nil {
			t.Fatal("a micro-batch beyond the step was accepted")
		}
	}
}

// TestMisuse: the caller's mistakes are errors and change nothing.
func TestMisuse(t *testing.T) {
	a := NewAccum(2, 2, -40)
	for _, err := range []error{
		a.Add(2, []float32{1, 1}, 0, 0, 0), a.Add(-1, []float32{1, 1}, 0, 0, 0), a.Add(0, []float32{1}, 0, 0, 0),
		a.Add(0, []float32{1, 1}, 0, -1, 0), a.Add(0, []float32{1, 1}, 0, 0, math.MaxInt64),
	} {
		if err == nil {
			t.Error("accepted")
		}
	}
	if slices.Max(a.v) != 0 {
		t.Error(a.v)
	}
	groups := groupOf(1, nil)
	defer closeAll(groups)
	if _, err := groups[0].Reduce(t.Context(), OpID{Run: 7, Generation: 4}, a, new(Sum)); err == nil {
		t.Error("another generation's operation was accepted")
	}
}

// TestNoAllocation: an evaluation and a step cost a fixed handful of small allocations, whatever the size.
func TestNoAllocation(t *testing.T) {
	const params = 300_000
	groups := groupOf(2, nil)
	defer closeAll(groups)
	g, a, out := make([]float32, params), [2]*Accum{NewAccum(params, 2, -40), NewAccum(params, 2, -40)}, [2]Sum{}
	g[7] = 1
	losses := [2]*Accum{NewAccum(0, 2, -40), NewAccum(0, 2, -40)}
	var lossSums [2]Sum
	step := func() {
		together(groups, func(r int, gr *Group) {
			losses[r].Reset()
			_ = losses[r].Add(r, nil, 1, 1, 1)
			if _, err := gr.Reduce(context.Background(), testOp(1), losses[r], &lossSums[r]); err != nil {
				t.Error(err)
			}
			a[r].Reset()
			_ = a[r].Add(r, g, 1, 1, 1)
			if _, err := gr.Reduce(context.Background(), testOp(1), a[r], &out[r]); err != nil {
				t.Error(err)
			}
		})
	}
	const steps, small = 10, 16 << 10
	perStep := uint64(math.MaxUint64)
	for round := 0; round < 14 && perStep > small; round++ { // buffers are made as many as happen to be needed at once, at most twelve
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range steps {
			step()
		}
		runtime.ReadMemStats(&after)
		perStep = (after.TotalAlloc - before.TotalAlloc) / steps
	}
	if perStep > small {
		t.Errorf("%d bytes per step", perStep)
	}
}

// TestAllGather collects blobs of different lengths, the empty and the longest among them.
func TestAllGather(t *testing.T) {
	for n := 1; n <= 5; n++ {
		groups := groupOf(n, nil)
		blobs := make([][]byte, n)
		for r := range blobs {
			blobs[r] = slices.Repeat([]byte{byte(r)}, MaxBlob*r/4)
		}
		together(groups, func(r int, g *Group) {
			got, err := g.AllGather(t.Context(), testOp(1), blobs[r])
			if err != nil || !slices.EqualFunc(got, blobs, slices.Equal[[]byte]) {
				t.Errorf("member %d of %d: %v", r, n, err)
			}
			if _, err := g.AllGather(t.Context(), testOp(1), make([]byte, MaxBlob+1)); err == nil {
				t.Error("a blob over the bound was accepted")
			}
		})
		closeAll(groups)
	}
}
