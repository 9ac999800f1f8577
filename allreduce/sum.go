package allreduce

import (
	"fmt"
	"math"
)

// Sum is the result of a step, the same bits on every member. Its memory is reused from call to call.
type Sum struct {
	Grad   []float32 // [params] exact sum of the quantised micro-batch gradients, rounded once to f32
	Loss   float64   // summed token loss in nats, to 2^-30
	Tokens int64     // labelled tokens
	Total  int64     // all tokens
	Votes  int64     // members that voted yes
	Leaves int64     // members that want to leave
	Took   []int64   // [M] microseconds that the computation of each micro-batch took where it was done; 0 = nobody says
	Bad    []int     // micro-batches with a NaN, an infinity or an overflow, ascending; they count for nothing above
}

// CoverageError says that the members' micro-batches were not each of 0..M-1 exactly once. Every member of the
// operation gets the same one. The group is still in step and can go on.
type CoverageError struct {
	Op       OpID
	Missing  []int // counted by nobody
	Repeated []int // counted more than once
}

func (e *CoverageError) Error() string {
	return fmt.Sprintf("all-reduce %v: coverage: micro-batches missing %v, repeated %v: the owners of the lease and the accumulators disagree",
		e.Op, e.Missing, e.Repeated)
}

// round writes sum*unit to grad with a single rounding: the conversion rounds, the power of two is exact.
func round(grad []float32, sum []int64, unit float32) {
	sum = sum[:len(grad)]
	for i := fastRound(grad, sum, unit); i < len(grad); i++ {
		grad[i] = float32(sum[i]) * unit
	}
}

// resize prepares the gradient for n parameters without giving memory back.
func (s *Sum) resize(n int) {
	if cap(s.Grad) < n {
		s.Grad = make([]float32, n)
	}
	s.Grad = s.Grad[:n]
}

// settle reads the summed trailer.
func (s *Sum) settle(op OpID, trailer []int64) error {
	s.Loss = float64(trailer[slotLoss]) / lossScale
	s.Tokens, s.Total, s.Votes = trailer[slotTokens], trailer[slotTotal], trailer[slotVotes]
	s.Leaves = trailer[slotLeaves]
	s.Bad = s.Bad[:0]
	micros := (len(trailer) - slotMicros) / 2
	counters := trailer[slotMicros:][:micros]
	s.Took = append(s.Took[:0], trailer[slotMicros+micros:]...)
	var miss, twice []int
	for mb, c := range counters {
		switch n := c & math.MaxUint32; {
		case n == 0:
			miss = append(miss, mb)
		case n > 1:
			twice = append(twice, mb)
		case c >= flagged:
			s.Bad = append(s.Bad, mb)
		}
	}
	if miss != nil || twice != nil {
		return &CoverageError{Op: op, Missing: miss, Repeated: twice}
	}
	return nil
}
