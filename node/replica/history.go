package replica

import (
	"encoding/binary"
	"io"

	"lorad/engine"
	"lorad/node/best"
)

// history is what came of the steps so far, as far as the job's rules depend on it: the validation losses, the parameters
// of the best one, and the steps that were skipped. It is state like any other, so that a copy or a checkpoint decides as
// the original would have. Parameters are kept in memory and not in a file beside the checkpoints: who joins has them with
// the rest, and no crash can leave a run with a verdict and without what it is about.
//
// The evaluation after the step done last stays apart (now) until the next step is made. Only then are its parameters
// copied: most runs get better, and nearly every evaluation would copy them for nothing.
type history struct {
	before, now  best.State // before and with the evaluation after the last step
	skipped, row uint64     // steps that changed nothing: all, and the last ones without one between them that did
	kept         []float32  // parameters after step before.Step; nil = none are to be kept
}

func (r Rule) remembers() bool { return r.Best != best.Rule{} || r.Skips > 0 }

// keeps says whether kept has any parameters in it.
func (h *history) keeps() bool { return h.kept != nil && h.before.Step > 0 }

// updates is how often the optimiser has stepped.
func (r *Replica) updates() int { return int(r.done - r.history.skipped) }

// settle makes the evaluation after the last step one of those before the next.
func (r *Replica) settle() {
	h := &r.history
	if h.kept != nil && h.now.Step == r.done && r.done > h.before.Seen {
		copy(h.kept, r.trainer.Params())
	}
	h.before = h.now
}

// Observe takes the validation loss after the last step and says whether the run ends with it. To say it again changes
// nothing: a generation may be given up after some of its members have learnt it.
func (r *Replica) Observe(loss float64) (over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.now = r.rule.Best.Observe(r.history.before, r.done, loss)
	return r.rule.Best.Over(r.history.now)
}

// Best is what the evaluations have shown, the one after the last step included, and whether the run has ended with it.
func (r *Replica) Best() (s best.State, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s = r.history.now
	return s, s.Seen == r.done && r.rule.Best.Over(s)
}

// Result is the trainer with the parameters that are the result of the run so far: those of the best step if these are
// kept, else the present ones.
func (r *Replica) Result() engine.Trainer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := &r.history; h.keeps() && h.now.Step == h.before.Step {
		return chosen{r.trainer, h.kept}
	}
	return r.trainer
}

// chosen is a trainer with other parameters, to be written to a file.
type chosen struct {
	engine.Trainer
	params []float32
}

// Params is what was chosen.
func (c chosen) Params() []float32 { return c.params }

// MaySkip says whether the next step may be one that changes nothing.
func (r *Replica) MaySkip() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.history.row < uint64(r.rule.Skips)
}

// Skip counts a step whose gradient is not finite. Parameters and moments stay, and the optimiser does not know of it; the
// learning rate's schedule goes on, because it is a function of the step.
func (r *Replica) Skip() (rate float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	rate = r.rule.Schedule.LR(int(r.done))
	r.done++
	r.history.skipped++
	r.history.row++
	return rate
}

// historySize is the length of what append adds, if anything.
const historySize = 2*best.Size + 2*8

// append adds what the state format has of the history.
func (h *history) append(b []byte, rule Rule) []byte {
	if !rule.remembers() {
		return b
	}
	b = h.now.Append(h.before.Append(b))
	b = binary.LittleEndian.AppendUint64(b, h.skipped)
	return binary.LittleEndian.AppendUint64(b, h.row)
}

// read takes what append wrote, of a run with n parameters.
func (h *history) read(src io.Reader, rule Rule, n int) error {
	if rule.Best.Keep {
		h.kept = make([]float32, n)
	}
	if !rule.remembers() {
		return nil
	}
	var b [historySize]byte
	if _, err := io.ReadFull(src, b[:]); err != nil {
		return err
	}
	h.before, h.now = best.Read(b[:]), best.Read(b[best.Size:])
	h.skipped = binary.LittleEndian.Uint64(b[2*best.Size:])
	h.row = binary.LittleEndian.Uint64(b[2*best.Size+8:])
	return nil
}

// settled is what the digest covers: all but the evaluation after the last step. all is with it.
func (h *history) settled(rule Rule) []byte { return h.bytes(rule, h.before) }
func (h *history) all(rule Rule) []byte     { return h.bytes(rule, h.now) }

func (h *history) bytes(rule Rule, now best.State) []byte {
	if !rule.remembers() {
		return nil
	}
	b := (&history{before: h.before, now: now, skipped: h.skipped, row: h.row}).append(nil, rule)
	if h.keeps() {
		b = binary.LittleEndian.AppendUint32(b, checksum(0, h.kept, 1))
	}
	return b
}
