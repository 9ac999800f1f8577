package sim

import (
	"slices"

	"lorad/node/best"
	"lorad/node/step"
)

// life is what never changes in a run, and the states that it must go through.
type life struct {
	plan    step.Plan
	most    int // micro-batches in a step, at most
	keep    int // checkpoints
	applyIn int64
	rule    best.Rule
	end     uint64    // the step that the run ends with
	states  []replica // by steps done: those of an undisturbed run
}

// newLife draws a run. Steps are short against the coordinator's times, as in a small job, or long, as in a large one.
func newLife(w *World, i int) life {
	r := &w.rng
	most := r.between(1, 6)
	salt := r.next()
	l := life{most: most, keep: r.between(0, 3), applyIn: r.span(ms/10, 3*ms)}
	l.plan = step.Plan{
		Steps:     uint64(r.between(20, 400)),
		Work:      func(done uint64) []int { return sizes(mix(salt^done), most) },
		SaveEvery: uint64(pick(r, []int{0, 1, 5, 10, 25, 60})),
		EvalEvery: uint64(pick(r, []int{0, 3, 20, 50})),
	}
	if r.percent(60) {
		l.plan.Val = []int{100, 20, 60}
	}
	if len(l.plan.Val) > 0 && salt%2 == 0 { // not drawn: seeds that were kept are to stay the lives that they are
		l.rule = best.Rule{Patience: 1 + int(salt>>8%6), Threshold: float64(salt>>16%2) / 8}
	}
	l.live(replica{hash: mix(salt + uint64(i))})
	return l
}

// live goes through the run undisturbed.
func (l *life) live(r replica) {
	for l.states = append(l.states, r); r.done < l.plan.Steps && l.end == 0; l.states = append(l.states, r) {
		r = r.step(whole(r.done, len(l.plan.Work(r.done))))
		if l.plan.EvalAfter(r.done) {
			if r = r.observe(l.rule); l.rule.Over(r.now) {
				l.end = r.done
			}
		}
	}
	l.end = r.done
}

// sizes are the tokens of each micro-batch of a step.
func sizes(h uint64, most int) []int {
	out := make([]int, 1+int(h%uint64(most)))
	for i := range out {
		out[i] = 20 + int(mix(h+uint64(i))%80)
	}
	return out
}

// part is the gradient of one micro-batch: all there is to know of it is which one it is.
type part struct {
	done  uint64
	micro int
}

// advance is the optimiser: the next state is a hash of this one and of what the sum is made of.
func advance(state uint64, sum []part) uint64 {
	for _, p := range sum {
		state = mix(state ^ mix(p.done<<16|uint64(p.micro)))
	}
	return state
}

// whole is the sum as it should be.
func whole(done uint64, micros int) []part {
	sum := make([]part, micros)
	for i := range sum {
		sum[i] = part{done, i}
	}
	return sum
}

// add sums accumulators. The order does not matter, so it is made canonical.
func add(all [][]part) []part {
	sum := slices.Concat(all...)
	slices.SortFunc(sum, func(a, b part) int {
		if a.done != b.done {
			return int(int64(a.done) - int64(b.done))
		}
		return a.micro - b.micro
	})
	return sum
}

// saved is a checkpoint on disk.
type saved struct{ replica }

// disk is what a node keeps of a run.
type disk struct {
	inputs      bool
	checkpoints []saved // ascending
	acked       uint64  // newest step that the log says is durable here
	lost        uint64  // newest step of a checkpoint that a fault took away
}

// save puts a checkpoint there, whole.
func (d *disk) save(r replica) {
	i, found := slices.BinarySearchFunc(d.checkpoints, r.done, func(c saved, done uint64) int { return int(int64(c.done) - int64(done)) })
	if found {
		d.checkpoints[i] = saved{r}
		return
	}
	d.checkpoints = slices.Insert(d.checkpoints, i, saved{r})
}

// restore is checkpoint.Restore.
func (d *disk) restore(committed uint64) (replica, bool) {
	for _, c := range slices.Backward(d.checkpoints) {
		if c.done <= committed {
			return c.replica, true
		}
	}
	return replica{}, false
}

// rotate is checkpoint.Rotate: the oldest beyond keep go, but never the newest one that Restore would take, nor what is
// newer than the ledger.
func (d *disk) rotate(keep int, committed uint64, bug Bug) {
	if keep <= 0 || len(d.checkpoints) <= keep {
		return
	}
	old := len(d.checkpoints) - keep
	if bug == RotatesTooMuch {
		if d.checkpoints[old].done > committed {
			old = max(0, old-1)
		}
	} else {
		for old > 0 && d.checkpoints[old].done > committed {
			old--
		}
	}
	d.checkpoints = slices.Delete(d.checkpoints, 0, old)
}
