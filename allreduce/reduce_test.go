package allreduce

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// share deals the micro-batches to n members at random and in random order.
func share(seed uint64, ms []micro, n, unitLog2 int) []*Accum {
	rng := rand.New(rand.NewPCG(seed, 2))
	accs := make([]*Accum, n)
	for r := range accs {
		accs[r] = NewAccum(len(ms[0].g), len(ms), unitLog2)
	}
	for _, mb := range rng.Perm(len(ms)) {
		m := ms[mb]
		if err := accs[rng.IntN(n)].Add(mb, m.g, m.loss, m.tokens, m.total); err != nil {
			panic(err)
		}
	}
	return accs
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// TestExactForAnyMembership is the promise of the package: whoever computed what, in whatever order and among
// however many members, everyone gets the bits of the exact sum.
func TestExactForAnyMembership(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		params := rapid.SampledFrom([]int{0, 1, 7, 1023, 1024, 1025, 2500}).Draw(t, "params")
		micros := rapid.IntRange(1, 9).Draw(t, "micros")
		unit := rapid.SampledFrom([]int{-24, -40, -48}).Draw(t, "unit")
		seed := rapid.Uint64().Draw(t, "seed")
		ms := randomMicros(seed, params, micros)
		grad, loss := bigSum(ms, unit)
		for n := 1; n <= 5; n++ {
			accs := share(seed+uint64(n), ms, n, unit)
			accs[n-1].Vote(true)
			for i, a := range accs {
				a.Leave(i > 0)
				sayTimes(a)
			}
			checkAll(t, n, accs, grad, loss, ms)
		}
	})
}

func checkAll(t *rapid.T, n int, accs []*Accum, grad []float32, loss float64, ms []micro) {
	groups := groupOf(n, nil)
	defer closeAll(groups)
	way := rapid.SampledFrom(slices.Sorted(maps.Keys(ways(n)))).Draw(t, "way")
	for _, g := range groups {
		g.decide = ways(n)[way]
	}
	checkSums(t, way, groups, accs, 1, grad, loss, ms)
}

func checkSums(t *rapid.T, way string, groups []*Group, accs []*Accum, step uint64, grad []float32, loss float64, ms []micro) {
	n := len(groups)
	sums, errs := reduceAll(groups, testOp(step), accs)
	var tokens, total int64
	for _, m := range ms {
		tokens, total = tokens+m.tokens, total+m.total
	}
	for r, s := range sums {
		switch {
		case errs[r] != nil:
			t.Fatalf("%s: member %d of %d: %v", way, r, n, errs[r])
		case !sameBits(s.Grad, grad):
			t.Fatalf("%s: member %d of %d: gradient differs from the exact sum", way, r, n)
		case s.Loss != loss || s.Tokens != tokens || s.Total != total || s.Votes != 1 || len(s.Bad) != 0:
			t.Fatalf("member %d of %d: trailer %+v, want loss %v tokens %d total %d", r, n, s, loss, tokens, total)
		case s.Leaves != int64(n-1) || len(s.Took) != len(ms) || s.Took[len(ms)-1] != int64(len(ms)):
			t.Fatalf("member %d of %d: %d leave, times %v", r, n, s.Leaves, s.Took)
		}
	}
}

// sayTimes has the member that computed micro-batch i say that it took i+1 microseconds.
func sayTimes(a *Accum) {
	for i := range a.Micros() {
		if a.Has(i) {
			a.Took(i, time.Duration(i+1)*time.Microsecond)
		}
	}
}

func closeAll(groups []*Group) {
	together(groups, func(_ int, g *Group) { _ = g.Close() })
}
