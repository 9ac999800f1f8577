package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lorad/allreduce"
	"lorad/job"
	"lorad/node/checkpoint"
	"lorad/node/replica"
	"lorad/node/step"
	"lorad/node/tally"
	"lorad/proto"
)

// runDir is where this node keeps checkpoints and output of a run: output_dir where it was submitted, the state directory elsewhere.
// It stays so when the run gets another home: output_dir was chosen by the node that is gone, for its own disk.
func (n *Node) runDir(s *proto.Spec) string {
	if s.HomeNode == n.cfg.ID {
		return s.OutputDir
	}
	return filepath.Join(n.cfg.Dir, "runs", s.Run)
}

// atHome reports whether this node is to write the run's output. A run gets another home when its own is removed.
func (w *worker) atHome() bool {
	r := w.heard()
	return r != nil && r.HomeNode() == w.node.cfg.ID
}

// prepare gets the inputs, builds the recipe and the replica, and restores the newest checkpoint.
func (w *worker) prepare(ctx context.Context) error {
	spec := w.heard().Spec
	if err := w.node.fetchInputs(ctx, spec); err != nil {
		return err
	}
	var err error
	if w.job, err = job.Parse([]byte(spec.JobYaml)); err != nil {
		return err
	}
	if w.recipe, err = w.node.load(spec, w.job); err != nil {
		return err
	}
	if string(w.recipe.Set.Hash[:]) != string(spec.ManifestSha256) {
		return fmt.Errorf("prepare data: this node makes other examples of the same files (manifest %x, want %x): it runs another build of lorad; upgrade it", w.recipe.Set.Hash[:6], spec.ManifestSha256[:6])
	}
	if w.attempt, err = w.node.beginAttempt(w.id); err != nil {
		return err
	}
	w.giveBack() // what an earlier try took, if this is not the first one
	if w.trainer, err = w.planned(); err != nil {
		return err
	}
	w.careful()
	w.allocate()
	return w.restore(spec)
}

func (w *worker) allocate() {
	n := len(w.trainer.Params())
	w.tally = tally.New(w.recipe.MaxMicros(), unitLog2, w.node.threads(), w.trainers()...)
	w.grad = tally.Room(w.trainer)
	if w.job.ReduceWire == job.WireInt16 {
		w.units = make([]int8, n)
	}
	if v := w.recipe.ValMicros(); v > 0 {
		w.eval = allreduce.NewAccum(0, v, unitLog2)
	}
}

func (w *worker) restore(spec *proto.Spec) error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return fmt.Errorf("output_dir: %w", err)
	}
	rule := w.recipe.Rule()
	rule.Threads = w.node.threads()
	rep := replica.New(w.trainer, rule)
	done, passed := checkpoint.Restore(w.dir, spec.Run, w.heard().Step, rep)
	for _, err := range passed {
		w.log.Warn("checkpoint passed over", "err", err)
	}
	if done > 0 {
		w.log.Info("resuming from a checkpoint", "step", done)
	}
	w.mu.Lock()
	w.replica = rep
	w.mu.Unlock()
	w.machine = step.New(w.node.cfg.ID, w.plan(), done)
	w.accumFor(done)
	if w.atHome() {
		if err := w.writeLog(); err != nil {
			w.log.Warn("trainer_log.jsonl is not written", "err", err)
		}
	}
	return nil
}

func (w *worker) plan() step.Plan {
	return step.Plan{
		Steps:     uint64(w.recipe.Plan.Steps()),
		Work:      w.recipe.Work,
		SaveEvery: uint64(w.job.SaveSteps),
		EvalEvery: uint64(w.job.EvalSteps),
		Val:       w.recipe.ValWork(),
	}
}

// evaluate takes this member's share of the validation loss and sums it over all members, exactly.
func (w *worker) evaluate(ctx context.Context, a step.Evaluate) (step.Event, error) {
	w.eval.Reset()
	for _, i := range a.Micros {
		b := w.recipe.Val(i)
		loss, err := w.trainer.Loss(b)
		if err != nil {
			return nil, fmt.Errorf("evaluate after step %d: %w", a.Done, err)
		}
		if err := w.eval.Add(i, nil, loss, int64(b.Labelled()), int64(len(b.Tokens))); err != nil {
			return nil, fmt.Errorf("evaluate after step %d: %w", a.Done, err)
		}
		if ctx.Err() != nil {
			return nil, &linkError{err: ctx.Err()}
		}
	}
	if _, err := w.ring.Reduce(ctx, w.op(kindEvaluation, a.Done), w.eval, &w.evalSum); err != nil {
		return nil, err
	}
	if len(w.evalSum.Bad) > 0 {
		return nil, fmt.Errorf("evaluate after step %d: the loss of micro-batch %v of the validation set is not finite; lower learning_rate, or look at those examples", a.Done, w.evalSum.Bad)
	}
	loss := w.evalSum.Loss / float64(w.evalSum.Tokens)
	last := w.replica.Observe(loss) && a.Done < w.plan().Steps
	w.reports.evaluated(a.Done, loss, last)
	return step.Evaluated{Done: a.Done, Last: last}, nil
}

// save makes the present step durable and tells the coordinator who holds it. A disk that does not take it is no reason
// to stop: the state is in memory here and on the other members, and what was saved before is as it was.
func (w *worker) save(a step.Save) step.Event {
	done, sum, err := checkpoint.Save(w.dir, w.id, w.replica, w.writeModel)
	if err != nil {
		w.log.Warn("checkpoint was not saved; training goes on", "step", a.Done, "err", err)
		w.reports.complain(fmt.Sprintf("the checkpoint of step %d was not saved; training goes on: %v", a.Done, err))
		return step.Saved(a)
	}
	if err := checkpoint.Rotate(w.dir, w.job.SaveTotalLimit, w.heard().Step, w.best()); err != nil {
		w.log.Warn("old checkpoints stay", "err", err)
	}
	w.reports.durable(&proto.Checkpoint{Step: done, Sha256: sum, Nodes: []string{w.node.cfg.ID}})
	return step.Saved(a)
}

func (w *worker) writeModel(dir string) error {
	_, err := w.recipe.WriteModel(dir, w.trainer, w.heard().Spec.BaseModel)
	return err
}

// best is the step of the best evaluation, whose checkpoint stays, if the result of the run is that of this step.
func (w *worker) best() uint64 {
	if !w.job.LoadBest {
		return 0
	}
	s, _ := w.replica.Best()
	return s.Step
}

// verdict says in words how the run has come to its end, if not just by its last step.
func (w *worker) verdict() string {
	s, over := w.replica.Best()
	var said []string
	if over && s.Seen < w.plan().Steps {
		said = append(said, fmt.Sprintf("stopped early after step %d of %d: %d evaluations in a row without an improvement on eval_loss %.4g after step %d",
			s.Seen, w.recipe.Plan.Steps(), s.Waited, s.Loss, s.Step))
	} else {
		said = append(said, "all steps done")
	}
	if w.job.LoadBest && s.Step > 0 {
		said = append(said, fmt.Sprintf("the output is that of step %d, whose eval_loss is the lowest", s.Step))
	}
	return strings.Join(said, "; ")
}

// outputAgain is how often the home node tries to write the output while its disk is full: hours of training are not
// given up because somebody has to make room first.
const outputAgain = 2 * time.Second

// writeOutput writes what the run was for and returns its SHA-256.
func (w *worker) writeOutput(ctx context.Context) (sum []byte, err error) {
	for said := false; ; said = true {
		if err = os.MkdirAll(w.dir, 0o755); err == nil {
			sum, err = w.recipe.WriteModel(w.dir, w.replica.Result(), w.heard().Spec.BaseModel)
		}
		if err == nil || !w.atHome() || !full(err) {
			return sum, err
		}
		if !said {
			w.log.Warn("the output is not written yet: make room on the disk", "err", err)
			w.reports.complain(fmt.Sprintf("all steps are done, but the output is not written yet: make room on the disk: %v", err))
		}
		select {
		case <-time.After(outputAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// full says whether a disk, a quota or a limit has no room for what was to be written.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// finish writes the output if the run is complete and says that this member's part is over.
func (w *worker) finish(ctx context.Context, a step.Finish) (step.Event, error) {
	r := &proto.Report{Outcome: proto.Outcome_PAUSED}
	if !a.Paused {
		sum, err := w.writeOutput(ctx)
		if err != nil && w.atHome() {
			return nil, fmt.Errorf("write output: %w", err)
		}
		if err != nil { // the home node has its own
			w.log.Warn("the output was not written here", "err", err)
			return step.Closed{}, w.reports.drain(ctx)
		}
		r = &proto.Report{Outcome: proto.Outcome_FINISHED, AdapterSha256: sum, Detail: w.verdict()}
	}
	r.Generation = w.lease.Generation // of the ring that finished: what a later generation does is for others to say
	if err := w.reports.drain(ctx); err != nil {
		return nil, fmt.Errorf("report steps: %w", err)
	}
	if w.atHome() {
		if err := w.writeLog(); err != nil {
			return nil, fmt.Errorf("write output: %w", err)
		}
	}
	if err := w.report(ctx, r); err != nil {
		return nil, err
	}
	return step.Closed{}, nil
}
