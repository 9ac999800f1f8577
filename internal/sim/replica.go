package sim

import (
	"math"

	"lorad/node/best"
)

// replica is the state that a member holds, as package replica has it.
type replica struct {
	done        uint64
	hash        uint64
	before, now best.State // what the evaluations have shown: before the last step was made, and since
}

// step is the state after one more step. One of whose gradients is not finite changes the number of steps done and
// nothing else, but what the evaluations have shown becomes part of the hash either way.
func (r replica) step(sum []part) replica {
	next := replica{r.done + 1, r.hash, r.now, r.now}
	if r.now != (best.State{}) {
		next.hash = mix(next.hash ^ math.Float64bits(r.now.Loss) ^ r.now.Step<<32 ^ r.now.Seen<<16 ^ r.now.Waited)
	}
	for _, p := range sum {
		if p.bad() {
			next.hash = mix(next.hash ^ weyl)
			return next
		}
	}
	next.hash = advance(next.hash, sum)
	return next
}

// bad says whether the gradient of a micro-batch is not finite.
func (p part) bad() bool { return mix(p.done<<20|uint64(p.micro)|1<<60)%97 == 0 }

// loss is what the validation set says of a state.
func (r replica) loss() float64 { return float64(1+mix(r.hash^weyl)%1000) / 1000 }

// observe takes the evaluation after the last step.
func (r replica) observe(rule best.Rule) replica {
	r.now = rule.Observe(r.before, r.done, r.loss())
	return r
}
