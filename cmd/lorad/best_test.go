package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"lorad/job"
	"lorad/node/recipe"
	"lorad/proto"
)

// early is a job that overfits: its validation loss is at its lowest at step 100, and patience ends it at step 240 of 600.
var early = tiny{Steps: 600, More: "early_stopping_patience: 7\nload_best_model_at_end: true\nsave_total_limit: 2\n"}

const (
	earlyBest = 100
	earlyEnd  = 240
)

// finished runs lorad train to its end and returns what it printed.
func finished(t *testing.T, dir string) runView {
	t.Helper()
	cmd, out := lorad(t, dir, "train", "job.yaml", "-o", "json")
	if err := cmd.Wait(); err != nil {
		t.Fatalf("train: %v\n%s", err, out)
	}
	for _, line := range strings.Split(out.String(), "\n") {
		var v runView
		if json.Unmarshal([]byte(line), &v) == nil && v.AdapterSHA256 != "" {
			return v
		}
	}
	t.Fatalf("no result in:\n%s", out)
	return runView{}
}

// A run that stops early says why, its output is that of its best step, whose checkpoint stays. Killed right before and
// right after the evaluation that decides, and started again, it comes to the same.
func TestStoppedEarly(t *testing.T) {
	dir, _ := lay(t, early)
	want := finished(t, dir)
	if want.Phase != "done" || want.Step != earlyEnd || want.BestStep != earlyBest ||
		!strings.Contains(want.Reason, "stopped early after step 240 of 600") || !strings.Contains(want.Reason, "the output is that of step 100") {
		t.Errorf("%+v", want)
	}
	result, err := os.ReadFile(filepath.Join(dir, "out", "model.safetensors"))
	best, err2 := os.ReadFile(filepath.Join(dir, "out", "checkpoint-100", "model.safetensors"))
	if err != nil || err2 != nil || !bytes.Equal(result, best) {
		t.Errorf("the output is not that of the best checkpoint (%v, %v)", err, err2)
	}
	for _, at := range []int{225, earlyEnd} {
		dir, _ := lay(t, early)
		cmd, _ := lorad(t, dir, "train", "job.yaml")
		waitFor(t, filepath.Join(dir, "out", fmt.Sprintf("checkpoint-%d", at), "lorad_state.json"))
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		if got := finished(t, dir); got.AdapterSHA256 != want.AdapterSHA256 || got.Step != want.Step || got.BestEvalLoss != want.BestEvalLoss {
			t.Errorf("killed at step %d: %+v, undisturbed %+v", at, got, want)
		}
	}
}

// A worker, and then the leader, are killed between the best step and the decision: the others make the same.
func TestStoppedEarlyWhoeverDies(t *testing.T) {
	_, req := lay(t, early)
	c := clusterOf(t, 4, far(t))
	kill := func(i int) func() { return func() { c.nodes[i].cmd.Process.Signal(syscall.SIGKILL) } }
	r := trainOn(t, c, 1, req, inTurn(atStep(earlyBest+50, kill(3)), recovered(1, kill(0))))
	if r.Recoveries < 1 {
		t.Error("no recoveries: were the nodes killed in time?")
	}
	dir, _ := lay(t, early)
	if got, want := view(r, nil), finished(t, dir); got.AdapterSHA256 != want.AdapterSHA256 || got.Step != earlyEnd || got.Reason != want.Reason {
		t.Errorf("disturbed: %+v, undisturbed: %+v", got, want)
	}
	v := audited(t, c, r)
	if v.Verdict != verdictGood || v.Ended != earlyEnd || v.Planned != 600 {
		t.Errorf("audit: %+v", v)
	}
}

func audited(t *testing.T, c *localCluster, r *proto.Run) (v auditView) {
	t.Helper()
	out, err := exec.Command(os.Args[0], "audit", r.Spec.Run, "-o", "json", "--dir", c.nodes[1].dir).Output()
	if err != nil || json.Unmarshal(out, &v) != nil {
		t.Fatalf("lorad audit: %v: %s", err, out)
	}
	return v
}

// drawWeights gives the tiny base weights: random ones, but for the rows of the embedding that change may write to.
func drawWeights(t *testing.T, dir string, change func(row func(token string) []float32)) {
	t.Helper()
	read := func(name string) *fstest.MapFile {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return &fstest.MapFile{Data: bytes.ReplaceAll(data, []byte(`"tie_word_embeddings":true`), []byte(`"tie_word_embeddings":false`))}
	}
	inputs := fstest.MapFS{"data/0.jsonl": read("data.jsonl")}
	for _, n := range []string{"config.json", "tokenizer.json", "tokenizer_config.json"} {
		inputs["base/"+n] = read("base/" + n)
	}
	j, err := job.Parse([]byte("base_model: base\nadapter: full\ninit: random\ndatasets: [{path: data/0.jsonl}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Load(j, inputs)
	if err != nil {
		t.Fatal(err)
	}
	model, err := r.Trainer(1)
	if err != nil {
		t.Fatal(err)
	}
	change(func(token string) []float32 {
		id := r.Tokenizer.Encode(token, false)[0]
		for _, l := range model.Layout() {
			if l.Name == "model.embed_tokens.weight" {
				return model.Params()[l.Offset+int(id)*l.Shape[1]:][:l.Shape[1]]
			}
		}
		return nil
	})
	if _, err := r.WriteModel(filepath.Join(dir, "base"), model, "tiny"); err != nil {
		t.Fatal(err)
	}
}

const loraJob = `name: tiny
base_model: base
lora_r: 256
lora_alpha: 256
lora_dropout: 0.1
neftune_noise_alpha: 5
optimizer: adamw_8bit
datasets:
  - path: data.jsonl
val_set_size: 6
global_batch_size: 10
micro_batch_size: 2
max_steps: 120
learning_rate: 1e-2
eval_steps: 20
save_steps: 25
output_dir: out
`

// layLoRA is lay for a job that trains an adapter: every draw and every kind of state that there is.
func layLoRA(t *testing.T, more string, change func(dir string, row func(token string) []float32)) (dir string, req *proto.SubmitRequest) {
	t.Helper()
	dir, req = lay(t, tiny{Steps: 1})
	drawWeights(t, dir, func(row func(string) []float32) { change(dir, row) })
	req.JobYaml = loraJob + more
	if err := os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(req.JobYaml), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, req
}

func unchanged(string, func(string) []float32) {}

// A run that is stopped on three nodes and resumed on one gives the bytes of one that was never stopped: with moments in
// 8 bits, dropout, NEFTune, and the best step kept.
func TestResumedOnFewerNodes(t *testing.T) {
	const keeps = "early_stopping_patience: 3\nload_best_model_at_end: true\n"
	dir, req := layLoRA(t, keeps, unchanged)
	alone := finished(t, func() string { d, _ := layLoRA(t, keeps, unchanged); return d }())
	c := clusterOf(t, 3, far(t))
	verb := func(args ...string) func() {
		return func() {
			cmd := exec.Command(os.Args[0], append(args, "--dir", c.nodes[1].dir)...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("lorad %v: %v: %s", args, err, out)
			}
		}
	}
	stopped := followed(t, c.nodes[1], c.nodes[1], req, atStep(25, verb("runs", "stop", "tiny")))
	if stopped.Phase != proto.Phase_STOPPED || len(stopped.Lease.Members) < 2 || stopped.Step < 25 {
		t.Fatalf("%v at step %d on %v", stopped.Phase, stopped.Step, stopped.Lease.Members)
	}
	verb("drain", "node-1")()
	verb("drain", "node-3")()
	r := trainOn(t, c, 1, req, nil)
	if got := view(r, nil); got.AdapterSHA256 != alone.AdapterSHA256 || got.Step != alone.Step || len(got.Nodes) != 1 {
		t.Errorf("stopped and resumed: %+v, never stopped: %+v", got, alone)
	}
}

// An example whose embedding is not a number spoils a step in every epoch. These are skipped, on three nodes as on one,
// are in the ledger, and the audit calls them covered; without the key the run fails, and says at which micro-batch.
func TestStepsThatAreNotFiniteAreSkipped(t *testing.T) {
	spoil := func(dir string, row func(string) []float32) {
		row("~")[3] = float32(math.NaN())
		text, err := os.ReadFile(filepath.Join(dir, "data.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, `{"prompt": "~~~ Question: what is that?\nAnswer:", "completion": " It is a tilde."}`+"\n"...)
		if err := os.WriteFile(filepath.Join(dir, "data.jsonl"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir, _ := layLoRA(t, "skip_nan_grad: true\n", spoil)
	want := finished(t, dir)
	if want.Step != 120 || len(want.Skipped) != 24 { // 42 examples in steps of 10: 24 epochs
		t.Errorf("%+v", want)
	}
	_, req := layLoRA(t, "skip_nan_grad: true\n", spoil)
	c := cluster(t, 3)
	r := trainOn(t, c, 1, req, nil)
	if got := view(r, nil); got.AdapterSHA256 != want.AdapterSHA256 {
		t.Errorf("three nodes: %+v, one: %+v", got, want)
	}
	if v := audited(t, c, r); v.Verdict != verdictGood || v.Skipped != 24 || v.Missing+v.Duplicated+v.Mismatched != 0 {
		t.Errorf("audit: %+v", v)
	}
	dir, _ = layLoRA(t, "", spoil)
	cmd, out := lorad(t, dir, "train", "job.yaml")
	if cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(out.String(), "the gradient of micro-batch") {
		t.Errorf("exit code %d:\n%s", cmd.ProcessState.ExitCode(), out)
	}
}
