// Package curriculum decides which examples make up which step.
//
// The order of training is a pure function: the global batch of step t depends on (Spec, difficulties, t) and on
// nothing else, not on the calls made before, the number of nodes or the micro-batches already done. Any node can
// therefore compute any batch at any moment, which is what makes a resumed or healed run the same run.
//
// An epoch is a permutation of the examples: every example is in exactly one step of each epoch. A step never
// crosses an epoch, so the last batch of an epoch may be short. A global batch is cut, in order, into
// micro-batches of Spec.MicroBatch examples: their borders do not depend on who computes them.
//
// Three modes:
//
//   - none: a permutation drawn by (seed, epoch) with Fisher and Yates' shuffle (Knuth, TAOCP vol. 2, algorithm P).
//   - sorted: ascending difficulty in every epoch, ties by index. Baby steps of Bengio et al., "Curriculum
//     learning" (ICML 2009), in its simplest form.
//   - paced: the competence of Platanios et al., "Competence-based curriculum learning for neural machine
//     translation" (NAACL 2019), equation 7 with p = 2:  c(t) = min(1, sqrt(t (1 - c0^2)/T + c0^2)), c0 = 0.01.
//     There a batch is drawn with replacement from the easiest fraction c(t). Here t is the position i in the
//     epoch and T its length n, and example i is drawn without replacement from those of the easiest ceil(n c(i))
//     that are left. The pool is never empty: sqrt(x) >= x on [0, 1], so ceil(n c(i)) > i. It holds all
//     examples at the end of the epoch, so the result is a permutation.
//
// Why not draw with replacement as the paper does: "each example exactly once per epoch" is a promise that can be
// audited, and easy examples are not seen ten times before the first hard one is seen once.
// Why not math/rand: its Perm is free to change between Go releases; a run's order may not.
package curriculum

import (
	"fmt"
	"math"
	"sort"
	"sync/atomic"
)

// Modes of Spec.Mode.
const (
	None   = "none"
	Sorted = "sorted"
	Paced  = "paced"
)

// InitialCompetence is c0 of the paced mode: the fraction of examples that is open at the start of an epoch.
const InitialCompetence = 0.01

// Spec says how examples are ordered and cut into steps.
type Spec struct {
	Mode        string  // None, Sorted or Paced; empty = None
	Seed        uint64  // of the permutations
	GlobalBatch int     // examples in one optimiser step
	MicroBatch  int     // examples in one micro-batch; the last one of a step may be shorter
	Epochs      float64 // passes over the examples; may be fractional
	MaxSteps    int     // optimiser steps; wins over Epochs when positive, as in Hugging Face's Trainer
}

// Plan is the order of one run. It is safe for concurrent use.
type Plan struct {
	spec     Spec
	examples int     // or rows
	rows     [][]int // of examples: what is ordered and counted (pack.go); nil = single examples are
	ranked   []int   // examples by ascending difficulty; nil for None
	perEpoch int     // steps in an epoch
	steps    int

	last atomic.Pointer[epochOrder] // a cache only: the same epoch is asked for by many steps in a row
}

type epochOrder struct {
	epoch int
	order []int
}

// New plans a run over len(difficulty) examples. The values only matter to Sorted and Paced, which refuse NaN.
func New(s Spec, difficulty []float64) (*Plan, error) {
	if s.Mode == "" {
		s.Mode = None
	}
	if err := s.check(len(difficulty)); err != nil {
		return nil, fmt.Errorf("plan curriculum: %w", err)
	}
	p := &Plan{spec: s, examples: len(difficulty)}
	if s.Mode != None {
		ranked, err := rank(difficulty)
		if err != nil {
			return nil, fmt.Errorf("plan curriculum: %w", err)
		}
		p.ranked = ranked
	}
	p.perEpoch = ceilDiv(p.examples, s.GlobalBatch)
	p.steps = s.MaxSteps
	if p.steps == 0 {
		p.steps = stepsIn(s.Epochs, p.perEpoch)
	}
	return p, nil
}

// maxSteps bounds a run so that step and epoch arithmetic cannot overflow.
const maxSteps = 1 << 40

func (s Spec) check(examples int) error {
	switch {
	case s.Mode != None && s.Mode != Sorted && s.Mode != Paced:
		return fmt.Errorf("mode: invalid: %q is not one of none, sorted, paced", s.Mode)
	case examples == 0:
		return fmt.Errorf("examples: invalid: there are none to order")
	case s.GlobalBatch <= 0:
		return fmt.Errorf("global batch: invalid: %d examples; give at least 1", s.GlobalBatch)
	case s.MicroBatch <= 0:
		return fmt.Errorf("micro-batch: invalid: %d examples; give at least 1", s.MicroBatch)
	case s.MaxSteps < 0 || s.MaxSteps > maxSteps:
		return fmt.Errorf("max steps: invalid: %d; give 1 to 2^40, or 0 to go by epochs", s.MaxSteps)
	case s.MaxSteps > 0:
		return nil
	case !(s.Epochs > 0) || s.Epochs*float64(ceilDiv(examples, s.GlobalBatch)) > maxSteps:
		return fmt.Errorf("epochs: invalid: %v; give a positive number (fractions are fine), or max steps", s.Epochs)
	}
	return nil
}

// stepsIn is Hugging Face's ceil(epochs * steps per epoch), except that a product that misses a whole number by
// rounding alone (1.1 * 10 = 11.000000000000002) does not cost an extra step.
func stepsIn(epochs float64, perEpoch int) int {
	x := epochs * float64(perEpoch)
	if whole := math.Round(x); whole > 0 && math.Abs(x-whole) <= 1e-9*whole {
		return int(whole)
	}
	return int(math.Ceil(x))
}

// rank lists the examples by ascending difficulty, ties by index.
func rank(difficulty []float64) ([]int, error) {
	ranked := make([]int, len(difficulty))
	for i, d := range difficulty {
		if math.IsNaN(d) {
			return nil, fmt.Errorf("difficulty of example %d: invalid: not a number", i)
		}
		ranked[i] = i
	}
	sort.SliceStable(ranked, func(a, b int) bool { return difficulty[ranked[a]] < difficulty[ranked[b]] })
	return ranked, nil
}

// Steps is the number of optimiser steps of the run.
func (p *Plan) Steps() int { return p.steps }

// StepsPerEpoch is the number of steps that pass over all examples once.
func (p *Plan) StepsPerEpoch() int { return p.perEpoch }

// MicroBatches is the largest number of micro-batches a step of this plan has.
func (p *Plan) MicroBatches() int {
	return ceilDiv(min(p.spec.GlobalBatch, p.examples), p.spec.MicroBatch)
}

// Batch returns the micro-batches of step t (0-based) as example indices. It answers for every t >= 0, also
// beyond Steps; a negative t has no examples. The caller owns the result.
func (p *Plan) Batch(t int) [][]int {
	if t < 0 {
		return nil
	}
	order := p.epochOrder(t / p.perEpoch)
	from := t % p.perEpoch * p.spec.GlobalBatch
	batch := order[from:min(from+p.spec.GlobalBatch, len(order))]
	micros := make([][]int, 0, ceilDiv(len(batch), p.spec.MicroBatch))
	for len(batch) > 0 {
		n := min(p.spec.MicroBatch, len(batch))
		micros = append(micros, p.contents(batch[:n]))
		batch = batch[n:]
	}
	return micros
}

// Epoch is the number of epochs finished after step t (0-based), counted in steps as Hugging Face's Trainer does:
// (t+1) / steps per epoch.
func (p *Plan) Epoch(t int) float64 { return float64(t+1) / float64(p.perEpoch) }

// Order returns the permutation of epoch e (0-based): the examples in the order in which they are trained on.
func (p *Plan) Order(e int) []int { return append([]int(nil), p.epochOrder(e)...) }

func (p *Plan) epochOrder(e int) []int {
	if c := p.last.Load(); c != nil && c.epoch == e {
		return c.order
	}
	order := p.compute(e)
	p.last.Store(&epochOrder{e, order})
	return order
}

func (p *Plan) compute(e int) []int {
	switch p.spec.Mode {
	case Sorted:
		return p.ranked
	case Paced:
		return paced(p.ranked, newStream(p.spec.Seed, e))
	}
	return shuffled(p.examples, newStream(p.spec.Seed, e))
}

func shuffled(n int, s stream) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	for i := n - 1; i > 0; i-- {
		j := s.below(i + 1)
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// paced draws position i from the part of the easiest ceil(n c(i)) examples that is left.
func paced(ranked []int, s stream) []int {
	order := make([]int, len(ranked))
	pool := make([]int, 0, len(ranked))
	opened := 0
	for i := range order {
		for open := poolSize(i, len(ranked)); opened < open; opened++ {
			pool = append(pool, ranked[opened])
		}
		j, end := s.below(len(pool)), len(pool)-1
		order[i] = pool[j]
		pool[j] = pool[end]
		pool = pool[:end]
	}
	return order
}

// poolSize is ceil(n c(i)), kept in (i, n] whatever the rounding.
func poolSize(i, n int) int {
	return max(i+1, min(n, int(math.Ceil(float64(n)*Competence(i, n)))))
}

// Competence is c(i) at position i of an epoch of n examples: the fraction of examples, easiest first, that is
// open to be drawn (Platanios et al. 2019, equation 7, p = 2).
func Competence(i, n int) float64 {
	const c2 = InitialCompetence * InitialCompetence
	// float64(...) forbids fusing: every node must open the same pool.
	return min(1, math.Sqrt(float64(float64(i)/float64(n)*(1-c2))+c2))
}

func ceilDiv(a, b int) int { return (a-1)/b + 1 }
