package allreduce

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// late is a copy of an accumulator whose gradient is elsewhere still, and what brings it: part by part, in any order, slowly.
func late(a *Accum, ms []micro, size int) (b *Accum, bring func()) {
	b = NewAccum(a.params, a.micros, a.unitLog2)
	for mb, m := range ms {
		if a.Has(mb) {
			_ = b.AddBy(mb, m.loss, m.tokens, m.total, func() (bool, error) { return true, nil })
		}
	}
	if !b.Blank() {
		panic("a gradient that is elsewhere lies here")
	}
	grad, arrived := b.Arrive(size)
	for i := range grad {
		grad[i] = rand.Int64() // nothing that was cleared
	}
	return b, func() {
		for _, p := range rand.Perm(ceilDiv(a.params, size)) {
			time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
			copy(grad[p*size:min((p+1)*size, len(grad))], a.gradient()[p*size:])
			arrived(p)
		}
	}
}

// A sum that arrives while it is reduced is the one that was there, whatever the way, and no part is read before. Run with -race, which sees the latter too.
func TestArrive(t *testing.T) {
	const params, micros, size = 70_000, 5, 1000
	ms := randomMicros(3, params, micros)
	want, loss := bigSum(ms, -40)
	for _, n := range []int{1, 2, 4} {
		eachWay(t, n, nil, func(t *testing.T, _ string, groups []*Group) {
			accs := share(3, ms, n, -40)
			var bring []func()
			for r := range accs[:max(1, n-1)] { // the last of several has its own already
				b, f := late(accs[r], ms, size)
				accs[r], bring = b, append(bring, f)
			}
			for _, f := range bring {
				go f()
			}
			sums, errs := reduceAll(groups, testOp(1), accs)
			for r, s := range sums {
				if errs[r] != nil || !sameBits(s.Grad, want) || s.Loss != loss {
					t.Errorf("member %d: %v", r, errs[r])
				}
			}
		})
	}
}

// What does not arrive holds nobody up who gives up; and what arrives after that counts in the next generation.
func TestArriveTooLate(t *testing.T) {
	ms := randomMicros(4, 3000, 4)
	want, _ := bigSum(ms, -40)
	for _, n := range []int{1, 3} {
		accs := share(4, ms, n, -40)
		b, bring := late(accs[0], ms, 1000)
		accs[0] = b
		groups := groupOf(n, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		lost := errors.New("the GPU is lost")
		time.AfterFunc(20*time.Millisecond, func() { cancel(lost) })
		together(groups, func(r int, g *Group) {
			mine := t.Context()
			if r == 0 {
				mine = ctx
			}
			if _, err := g.Reduce(mine, testOp(1), accs[r], new(Sum)); err == nil || r == 0 && !errors.Is(err, lost) {
				t.Errorf("member %d of %d: %v", r, n, err)
			}
		})
		closeAll(groups)
		bring()
		groups = groupOf(n, nil)
		sums, errs := reduceAll(groups, testOp(1), accs)
		if err := errors.Join(errs...); err != nil || !sameBits(sums[n-1].Grad, want) {
			t.Errorf("%d members: %v", n, err)
		}
		closeAll(groups)
	}
}

// AddBy keeps Add's books: nothing is added twice, a trapped micro-batch is flagged whoever finds out, and after an error it may be tried again.
func TestAddBy(t *testing.T) {
	a, calls := NewAccum(2, 4, -40), 0
	add := func(fits bool, err error) func() (bool, error) {
		return func() (bool, error) { calls++; return fits, err }
	}
	for _, mb := range []int{0, 0} {
		if err := a.AddBy(mb, 2, 3, 4, add(true, nil)); err != nil || calls != 1 {
			t.Errorf("%d calls, %v", calls, err)
		}
	}
	if err := a.AddBy(1, 1, 1, 1, add(true, errors.New("broken"))); err == nil || a.Has(1) {
		t.Error("an error was not noticed")
	}
	if err := errors.Join(a.AddBy(1, 1, 1, 1, add(false, nil)), a.AddBy(2, 1e18, 1, 1, add(true, nil)), a.AddBy(3, 0, 0, 0, add(true, nil))); err != nil || calls != 4 {
		t.Errorf("%d calls, %v", calls, err)
	}
	groups := groupOf(1, nil)
	defer closeAll(groups)
	var out Sum
	if _, err := groups[0].Reduce(t.Context(), testOp(1), a, &out); err != nil || !slices.Equal(out.Bad, []int{1, 2}) || out.Loss != 2 || out.Tokens != 3 || out.Grad[0] != 0 {
		t.Errorf("%v %+v", err, out)
	}
}
