//go:build cuda && linux

package driver

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"gorgonia.org/cu"

	"lorad/engine/cuda/device"
)

var _ device.Tuner = (*gpu)(nil)

// Tune measures the other algorithms that cuBLASLt has for the products asked for so far. Those that are faster than the heuristic's first and compute its very
// bits are in the tables, beside what Config.Tuned had.
func (g *gpu) Tune() (all []device.Tuned, tables []byte, err error) {
	err = g.outside("tune", func() error {
		l := g.blas.lt
		if l == nil {
			return fmt.Errorf("there is no cuBLASLt (%s)", g.blas.name())
		}
		for _, of := range slices.SortedFunc(maps.Keys(l.plans), func(a, b Product) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
			t, err := g.tune(l, of)
			if err != nil {
				return fmt.Errorf("%s: %w", of, err)
			}
			all = append(all, t)
		}
		tables, err = l.tables.text()
		return err
	})
	return all, tables, err
}

// tune measures one product.
func (g *gpu) tune(l *lt, of Product) (t device.Tuned, err error) {
	p := l.plans[of]
	t = device.Tuned{Product: of.String(), Choices: len(p.choices)}
	if len(p.choices) < 2 {
		return t, nil
	}
	r := &rehearsal{g: g, l: l, of: of, p: p}
	defer func() { err = errors.Join(err, r.release()) }()
	if err := r.set(); err != nil {
		return t, err
	}
	times := map[algorithm]float64{}
	for i := range p.choices {
		if times[p.choices[i].algorithm], err = r.time(&p.choices[i]); err != nil {
			return t, err
		}
	}
	first := p.choices[0].algorithm
	t.First, t.Micros = times[first], times[first]
	var faster []choice
	for _, c := range p.choices[1:] {
		if times[c.algorithm] <= worthwhile*t.First {
			faster = append(faster, c)
		}
	}
	same, err := r.same(faster)
	t.OtherBits = len(faster) - len(same)
	if err != nil || len(same) == 0 {
		return t, err
	}
	best := slices.MinFunc(same, func(a, b choice) int { return cmp.Compare(times[a.algorithm], times[b.algorithm]) })
	t.Micros = times[best.algorithm]
	l.table.put(tunedProduct{of, first, best.algorithm})
	return t, nil
}

// worthwhile is how much of the first choice's time another may take: less of a gain is noise.
const worthwhile = 0.98

// rehearsal is a product on operands of its own.
type rehearsal struct {
	g       *gpu
	l       *lt
	of      Product
	p       *plan
	a, b, c device.Ptr
	whole   []cu.DevicePtr
	got     []byte
}

// set takes memory and writes operands.
func (r *rehearsal) set() error {
	of, size := r.of, r.of.In.Size()
	rowsA, rowsB := of.M, of.K
	if of.TransA {
		rowsA = of.K
	}
	if of.TransB {
		rowsB = of.N
	}
	r.got = make([]byte, of.M*of.LDC*of.Out.Size())
	for _, m := range []struct {
		at    *device.Ptr
		bytes int
		align int
	}{{&r.a, rowsA * of.LDA * size, of.AlignA}, {&r.b, rowsB * of.LDB * size, of.AlignB}, {&r.c, len(r.got), of.AlignC}} {
		at, err := cu.MemAlloc(int64(m.bytes) + 256)
		if err != nil {
			return err
		}
		r.whole = append(r.whole, at)
		*m.at = device.Ptr(at) + device.Ptr(m.align%256) // aligned as the product's own, and no better
	}
	return r.fill(0)
}

func (r *rehearsal) fill(seed int) error {
	of := r.of
	a := operand(seed, of.M, of.K, of.LDA, of.TransA, of.In, false)
	if err := r.g.staging.upload(r.a, a, r.g.stream); err != nil {
		return err
	}
	return r.g.staging.upload(r.b, operand(seed+1, of.N, of.K, of.LDB, !of.TransB, of.In, true), r.g.stream)
}

func (r *rehearsal) run(by *choice) error {
	*r.g.blas.alpha, *r.g.blas.beta = 1, 0
	return r.l.run(r.p, by, r.g.blas.alpha, r.b, r.a, r.g.blas.beta, r.c)
}

// time is the shortest of a few, in microseconds.
func (r *rehearsal) time(by *choice) (best float64, err error) {
	const rounds, calls = 3, 10
	var events [2]cu.Event
	for i := range events {
		if events[i], err = cu.MakeEvent(cu.DefaultEvent); err != nil {
			return 0, err
		}
		defer cu.DestroyEvent(&events[i])
	}
	best = math.Inf(1)
	for range rounds {
		steps := []func() error{func() error { return r.run(by) }, func() error { return events[0].Record(r.g.stream) }}
		for range calls {
			steps = append(steps, steps[0])
		}
		steps = append(steps, func() error { return events[1].Record(r.g.stream) }, func() error { return events[1].Synchronize() })
		for _, f := range steps {
			if err := f(); err != nil {
				return 0, err
			}
		}
		ms, err := events[0].Elapsed(events[1])
		if err != nil {
			return 0, err
		}
		best = min(best, 1000*ms/calls)
	}
	return best, nil
}

// same is those that have the first choice's bits, on several sets of operands that show any other order of the sums.
func (r *rehearsal) same(all []choice) ([]choice, error) {
	const sets = 3
	for i := 0; i < sets && len(all) > 0; i++ {
		if err := r.fill(10 * i); err != nil {
			return nil, err
		}
		if err := r.result(&r.p.choices[0]); err != nil {
			return nil, err
		}
		want := slices.Clone(r.got)
		var left []choice
		for j := range all {
			if err := r.result(&all[j]); err != nil {
				return nil, err
			}
			if bytes.Equal(r.got, want) {
				left = append(left, all[j])
			}
		}
		all = left
	}
	return all, nil
}

func (r *rehearsal) result(by *choice) error {
	if err := cu.MemsetD8Async(cu.DevicePtr(r.c), 0, int64(len(r.got)), r.g.stream); err != nil {
		return err
	}
	if err := r.run(by); err != nil {
		return err
	}
	return r.g.staging.fetch(r.got, r.c, r.g.stream, nil)
}

func (r *rehearsal) release() error {
	errs := []error{r.g.stream.Synchronize()}
	for _, p := range r.whole {
		errs = append(errs, cu.MemFree(p))
	}
	return errors.Join(errs...)
}
