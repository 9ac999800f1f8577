package recipe_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"lorad/engine"
	"lorad/job"
	"lorad/model/safetensors"
	"lorad/node/recipe"
)

var dump = flag.String("peft-dump", "", "write what scripts/oracle/peft_training.py needs into this folder (an absolute path), and compare with nothing")

// sequence is one example for Python.
type sequence struct {
	Tokens []int32 `json:"tokens"`
	Labels []int32 `json:"labels"`
}

// writeDump writes run.json, logits.safetensors (ours, all of them) and adapter/, the folder that the run came to.
func writeDump(t *testing.T, dir string, r run) {
	t.Helper()
	out := struct {
		recording
		Job     map[string]float64 `json:"job"`
		Steps   [][][]sequence     `json:"steps"` // [step][micro-batch][example]
		Prompts [][]int32          `json:"prompts"`
	}{recording{r.curve, baseHash(t), batchesHash(r.recipe)}, optimiser(r.recipe.Job), steps(r.recipe), prompts(r.recipe)}
	must(r.recipe.WriteModel(filepath.Join(dir, "adapter"), r.trainer, "embedded/base"))(t)
	writeFile(t, filepath.Join(dir, "run.json"), must(json.Marshal(out))(t))
	tensors := append(logitsOf(t, "base", bare(t, r.recipe), out.Prompts), logitsOf(t, "adapted", r.trainer, out.Prompts)...)
	var b bytes.Buffer
	if err := safetensors.Write(&b, tensors, nil); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "logits.safetensors"), b.Bytes())
	t.Logf("written to %s; nothing was compared", dir)
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// optimiser is what torch is told of the job.
func optimiser(j job.Job) map[string]float64 {
	return map[string]float64{
		"learning_rate": j.LearningRate, "warmup_steps": float64(j.WarmupSteps), "weight_decay": j.WeightDecay,
		"beta1": j.AdamBeta1, "beta2": j.AdamBeta2, "eps": j.AdamEpsilon, "max_grad_norm": j.MaxGradNorm,
	}
}

func steps(r *recipe.Recipe) [][][]sequence {
	out := make([][][]sequence, r.Plan.Steps())
	for done := range out {
		for i := range r.Micros(uint64(done)) {
			out[done] = append(out[done], sequences(r.Micro(uint64(done), i)))
		}
	}
	return out
}

func sequences(b engine.Batch) []sequence {
	var out []sequence
	for i, lo := range b.Starts[:len(b.Starts)-1] {
		hi := b.Starts[i+1]
		out = append(out, sequence{b.Tokens[lo:hi], b.Labels[lo:hi]})
	}
	return out
}

func logitsOf(t *testing.T, model string, m engine.Trainer, prompts [][]int32) []safetensors.Tensor {
	t.Helper()
	var out []safetensors.Tensor
	for i, p := range prompts {
		x := must(m.Logits(p))(t)
		out = append(out, safetensors.Tensor{Name: fmt.Sprintf("%s.%d", model, i), Shape: []int{len(p), len(x) / len(p)}, Data: x, DType: safetensors.F32})
	}
	return out
}
