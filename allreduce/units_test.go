package allreduce

import (
	"errors"
	"math/big"
	"math/rand/v2"
	"testing"
)

// coarseSum is bigSum with a unit for each value.
func coarseSum(ms []micro, units []int8) []float32 {
	grad := make([]float32, len(units))
	for i, u := range units {
		sum := new(big.Int)
		for _, m := range ms {
			sum.Add(sum, nearest(float64(m.g[i]), int(u)))
		}
		f := new(big.Float).SetPrec(256).SetInt(sum)
		grad[i], _ = f.SetMantExp(f, int(u)).Float32()
	}
	return grad
}

func someUnits(seed uint64, n int) []int8 {
	rng, units := rand.New(rand.NewPCG(seed, 3)), make([]int8, n)
	for i := range units {
		units[i] = int8(rng.IntN(30) - 40)
	}
	return units
}

// TestCoarseForAnyMembership: with a unit for each parameter the sum is still the exact one of what each micro-batch was rounded to,
// whoever computed what and whichever way it went.
func TestCoarseForAnyMembership(t *testing.T) {
	const params, micros = 3000, 6
	ms, units := randomMicros(5, params, micros), someUnits(5, params)
	want := coarseSum(ms, units)
	for n := 1; n <= 4; n++ {
		accs := make([]*Accum, n)
		for r := range accs {
			accs[r] = NewAccum(params, micros, -40)
			accs[r].Quantise(units)
		}
		for mb, m := range ms {
			if err := accs[(mb*mb)%n].Add(mb, m.g, m.loss, m.tokens, m.total); err != nil {
				t.Fatal(err)
			}
		}
		eachWay(t, n, nil, func(t *testing.T, _ string, groups []*Group) {
			sums, errs := reduceAll(groups, testOp(1), accs)
			for r := range sums {
				if errs[r] != nil || !sameBits(sums[r].Grad, want) {
					t.Errorf("member %d of %d: %v, or another sum", r, n, errs[r])
				}
			}
		})
	}
}

// TestUnitsAreAgreed: members with other units do not add up.
func TestUnitsAreAgreed(t *testing.T) {
	groups := groupOf(2, nil)
	defer closeAll(groups)
	accs := share(1, randomMicros(1, 3000, 2), 2, -40)
	units := someUnits(1, 3000)
	accs[0].Quantise(units)
	other := append([]int8(nil), units...)
	other[2999]++
	accs[1].Quantise(other)
	_, errs := reduceAll(groups, testOp(1), accs)
	for r, err := range errs {
		if ae := abortOf(t, r, err); ae.Cause == nil {
			t.Error(err)
		}
	}
	var fe *FenceError
	if !errors.As(errs[0], &fe) && !errors.As(errs[1], &fe) {
		t.Error(errs)
	}
}

// TestCoarseOverflow: a micro-batch that does not fit contributes nothing but its flag.
func TestCoarseOverflow(t *testing.T) {
	a := NewAccum(3, 2, -40)
	a.Quantise([]int8{-10, -40, -40})
	_ = a.Add(0, []float32{1, 2, 1e30}, 1, 1, 1)
	_ = a.Add(1, []float32{1, 2, 3}, 1, 1, 1)
	if a.v[0] != 1<<10 || a.v[1] != 2<<40 || a.v[2] != 3<<40 || *a.counter(0) < flagged || *a.counter(1) != 1 {
		t.Errorf("%v", a.v)
	}
}
