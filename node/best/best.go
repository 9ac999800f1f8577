// Package best follows the validation loss of a run: after which step it was best, and whether to go on.
//
// A verdict is a function of the losses so far and of nothing else. They are exact sums that all members of a run have,
// and State is part of what every member holds whole (package replica), so all stop after the same step and keep the same
// parameters, whoever died on the way. The rules are those of transformers: Trainer for the best step,
// EarlyStoppingCallback for the end.
package best

import (
	"encoding/binary"
	"math"
)

// Rule is what the job says of it. The zero Rule stops never and keeps nothing.
type Rule struct {
	Patience  int     // evaluations in a row without an improvement that end the run; 0 = none does
	Threshold float64 // what is no more than so much below the best loss is no improvement
	Keep      bool    // the result of the run is that of the best step
}

// State is what the evaluations so far have shown. The zero State has seen none.
type State struct {
	Loss   float64 // the lowest, in nats per token
	Step   uint64  // that it was found after, the first if there are several; 0 = there is none
	Seen   uint64  // the step of the last evaluation
	Waited uint64  // evaluations in a row without an improvement
}

// Observe is the state after an evaluation. The best loss is the lowest, by however little; patience asks for more than
// the threshold, as in transformers.
func (r Rule) Observe(s State, step uint64, loss float64) State {
	next := State{Loss: s.Loss, Step: s.Step, Seen: step, Waited: s.Waited + 1}
	first := s.Step == 0
	if first || loss < s.Loss && s.Loss-loss > r.Threshold {
		next.Waited = 0
	}
	if first || loss < s.Loss {
		next.Loss, next.Step = loss, step
	}
	return next
}

// Over says whether the run ends with the last evaluation.
func (r Rule) Over(s State) bool { return r.Patience > 0 && s.Waited >= uint64(r.Patience) }

// Size is the number of bytes that Append adds.
const Size = 4 * 8

// Append adds the state's bytes, little-endian, field by field.
func (s State) Append(b []byte) []byte {
	for _, x := range []uint64{math.Float64bits(s.Loss), s.Step, s.Seen, s.Waited} {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

// Read is the state whose bytes begin b, which has Size of them.
func Read(b []byte) State {
	at := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	return State{Loss: math.Float64frombits(at(0)), Step: at(1), Seen: at(2), Waited: at(3)}
}
