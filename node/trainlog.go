package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"lorad/internal/durable"
	"lorad/proto"
)

// logLine is one line of trainer_log.jsonl, in the words of Hugging Face's Trainer (loss, grad_norm, learning_rate,
// epoch) and LLaMA-Factory's log (current_steps, total_steps, percentage, throughput), so that tools that read those
// read this.
type logLine struct {
	Step         uint64   `json:"current_steps"`
	Steps        uint64   `json:"total_steps"`
	Percentage   float64  `json:"percentage"`
	Loss         float64  `json:"loss"`
	EvalLoss     *float64 `json:"eval_loss,omitempty"`
	GradNorm     float64  `json:"grad_norm"`
	LearningRate float64  `json:"learning_rate"`
	Epoch        float64  `json:"epoch"`
	Tokens       uint64   `json:"num_tokens"`
	Throughput   float64  `json:"tokens_per_second"`
	Skipped      []uint32 `json:"skipped_micro_batches,omitempty"` // not finite: the step has changed nothing
}

func lineOf(s *proto.StepRecord, steps uint64) logLine {
	l := logLine{
		Step: s.Step, Steps: steps, Percentage: round(100*float64(s.Step)/float64(steps), 100),
		Loss: s.Loss, GradNorm: s.GradNorm, LearningRate: s.LearningRate, Epoch: s.Epoch, Tokens: s.TotalTokens,
		Skipped: s.Bad,
	}
	if s.EvalLoss != 0 {
		l.EvalLoss = &s.EvalLoss
	}
	if s.DurationUs > 0 {
		l.Throughput = round(float64(s.TotalTokens)*1e6/float64(s.DurationUs), 10)
	}
	return l
}

func round(x, unit float64) float64 { return float64(int64(x*unit+0.5)) / unit }

const trainerLog = "trainer_log.jsonl"

// writeLog writes trainer_log.jsonl from the ledger: what is there after a resume or a recovery is what was committed,
// whoever computed it.
func (w *worker) writeLog() error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	for _, s := range w.node.cfg.Control.Ledger(w.id, 0) {
		if !w.logged(s) {
			continue
		}
		if err := enc.Encode(lineOf(s, uint64(w.recipe.Plan.Steps()))); err != nil {
			return fmt.Errorf("step %d: %w", s.Step, err)
		}
	}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(w.dir, trainerLog), buf.Bytes(), 0o644)
}

func (w *worker) logged(s *proto.StepRecord) bool {
	every := uint64(max(w.job.LoggingSteps, 1))
	return s.Step%every == 0 || s.Step == 1 || s.EvalLoss != 0 || len(s.Bad) > 0 || s.Step == uint64(w.recipe.Plan.Steps())
}

// appendLog adds a line while the run is on, for whoever follows the file; writeLog replaces it all when the run starts,
// resumes and ends.
func (w *worker) appendLog(s *proto.StepRecord) {
	if !w.atHome() || !w.logged(s) {
		return
	}
	line, err := json.Marshal(lineOf(s, uint64(w.recipe.Plan.Steps())))
	if err != nil {
		return
	}
	f, err := os.OpenFile(filepath.Join(w.dir, trainerLog), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		w.log.Warn("trainer_log.jsonl is not written", "err", err)
		return
	}
	f.Write(append(line, '\n'))
	f.Close()
}
