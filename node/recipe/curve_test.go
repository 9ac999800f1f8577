package recipe_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"lorad/allreduce"
	"lorad/embedded"
	"lorad/engine/lora"
	"lorad/job"
	"lorad/model"
	"lorad/model/safetensors"
	"lorad/node/recipe"
	"lorad/node/replica"
)

// Long runs against transformers, PEFT and bitsandbytes: 200 steps of LoRA and of QLoRA on three families. The bases are small random
// models, made here; scripts/oracle/README.md says how the losses under testdata/curves were recorded.

const (
	curveSteps = 200
	firstSteps = 10
	meanOver   = 20 // steps
	curvesDir  = "testdata/curves"
	curveTasks = 16 // records that are trained on
)

var curvesDump = flag.String("curves-dump", "", "write what scripts/oracle/curves.py needs into this folder (an absolute path), and compare with nothing")

const curveShape = `"vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
"head_dim": 16, "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "dtype": "bfloat16"`

var curveFamilies = map[string]string{
	"llama":   `{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 10000.0, "tie_word_embeddings": true, ` + curveShape + `}`,
	"mistral": `{"model_type": "mistral", "architectures": ["MistralForCausalLM"], "rope_theta": 10000.0, "sliding_window": 24, "tie_word_embeddings": false, ` + curveShape + `}`,
	"wide": `{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 10000.0, "tie_word_embeddings": false, "vocab_size": 2048, "hidden_size": 128,
"intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "hidden_act": "silu",
"max_position_embeddings": 512, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "dtype": "bfloat16"}`, // heads that the GPU computes: see gpu_test.go
	"qwen3": `{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "rope_theta": 1000000.0, "tie_word_embeddings": true, ` + curveShape + `}`,
}

var curveKinds = map[string]string{
	"lora":      "",
	"qlora":     "load_in_4bit: true\n",
	"qlora8bit": "load_in_4bit: true\noptimizer: paged_adamw_8bit\n",
	"lorabf16":  "bf16: true\n",
	"qlorabf16": "load_in_4bit: true\nbnb_4bit_compute_dtype: bfloat16\n",
}

// curveLimits are of the first losses, absolute, and of means, relative. In bf16 the two sides round at different places: lorad rounds what
// it multiplies and sums in f32, torch rounds sums as well.
var curveLimits = map[string][2]float64{
	"lora": {5e-5, 2e-4}, "qlora": {5e-5, 2e-4}, "qlora8bit": {5e-5, 2e-4}, "lorabf16": {1e-2, 5e-3}, "qlorabf16": {1e-2, 5e-3},
}

// nearF32 limits how far bf16 is from PEFT in f32: PEFT's own is up to 3.8e-3 away.
var nearF32 = [2]float64{5e-3, 2.5e-3}

const curveJob = `base_model: base
datasets: [{path: data/0.jsonl, type: completion}]
lora_r: 8
lora_alpha: 16
lora_dropout: 0
lora_target_modules: all-linear
sequence_len: 128
global_batch_size: 4
micro_batch_size: 2
max_steps: 200
learning_rate: 5e-3
lr_scheduler: cosine
warmup_steps: 10
weight_decay: 0.01
seed: 7
`

// TestOracleCurves trains as the recorded run did and holds the limits of both. One run is enough to find a race.
func TestOracleCurves(t *testing.T) {
	if raced {
		followCurve(t, "llama", "qlora8bit")
		return
	}
	if *curvesDump != "" {
		t.Run("wide-lorabf16", func(t *testing.T) { followCurve(t, "wide", "lorabf16") }) // what TestGPUCurve compares with
	}
	for _, family := range []string{"llama", "mistral", "qwen3"} {
		for _, kind := range []string{"lora", "qlora", "qlorabf16", "qlora8bit", "lorabf16"} {
			if family == "llama" || kind != "qlora8bit" {
				t.Run(family+"-"+kind, func(t *testing.T) { followCurve(t, family, kind) })
			}
		}
	}
}

func followCurve(t *testing.T, family, kind string) {
	name, files := family+"-"+kind, randomBase(t, curveFamilies[family])
	j := must(job.Parse([]byte(curveJob + curveKinds[kind])))(t)
	r := must(recipe.Load(j, files))(t)
	run := run{recipe: r, trainer: must(r.Trainer(2))(t)}
	base := fmt.Sprintf("%x", sha256.Sum256(files[recipe.BaseDir+"/model.safetensors"].Data))
	if *curvesDump != "" {
		dumpInitial(t, filepath.Join(*curvesDump, name), run, files)
	}
	takeSteps(t, &run)
	ours := recording{run.curve, base, batchesHash(r)}
	if *curvesDump != "" {
		dumpRun(t, filepath.Join(*curvesDump, name), run, ours)
		return
	}
	compareLosses(t, run.curve.Loss, recordedCurve(t, name, ours), curveLimits[kind])
	if kind == "lorabf16" { // nearer to f32 than PEFT's own bf16 is
		compareLosses(t, run.curve.Loss, recordedCurve(t, family+"-lora", ours), nearF32)
	}
}

// recordedCurve is PEFT's losses from the base and the batches of a run here.
func recordedCurve(t *testing.T, name string, ours recording) []float64 {
	t.Helper()
	var theirs recording
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(curvesDir, name+".json")))(t), &theirs); err != nil {
		t.Fatal(err)
	}
	if theirs.Base != ours.Base || theirs.Batches != ours.Batches {
		t.Fatal("the random base, the records or the data order changed: record again, see scripts/oracle/README.md")
	}
	return theirs.Loss
}

// randomBase is a folder with weights from N(0, 0.08^2), norms near 1, and the embedded base's tokenizer.
func randomBase(t *testing.T, config string) fstest.MapFS {
	t.Helper()
	cfg := must(model.ReadConfig([]byte(config)))(t)
	var tensors []safetensors.Tensor
	for _, s := range cfg.Tensors() {
		n := 1
		for _, d := range s.Shape {
			n *= d
		}
		x := make([]float32, n)
		lora.InitNormal(x, 0.08, 1, s.Name)
		for i := range x {
			if len(s.Shape) == 1 {
				x[i]++
			}
		}
		tensors = append(tensors, safetensors.Tensor{Name: s.Name, Shape: s.Shape, Data: x, DType: safetensors.BF16})
	}
	var b bytes.Buffer
	if err := safetensors.Write(&b, tensors, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfterN(embedded.LegalTrain(), []byte("\n"), curveTasks+1)
	out := fstest.MapFS{
		recipe.BaseDir + "/config.json":       {Data: []byte(config)},
		recipe.BaseDir + "/model.safetensors": {Data: b.Bytes()},
		"data/0.jsonl":                        {Data: bytes.Join(lines[:curveTasks], nil)},
	}
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"} {
		out[recipe.BaseDir+"/"+name] = &fstest.MapFile{Data: must(fs.ReadFile(embedded.Base(), name))(t)}
	}
	return out
}

// takeSteps does every step of the run's job, as a worker in a ring of one.
func takeSteps(t *testing.T, r *run) {
	t.Helper()
	s := newStepper(t, r)
	for range r.recipe.Plan.Steps() {
		s.step(t)
	}
}

func newStepper(t *testing.T, r *run) *stepper {
	t.Helper()
	ring := must(allreduce.NewGroup(allreduce.Config{Members: []string{"alone"}}, allreduce.Links{}))(t)
	t.Cleanup(func() { ring.Close() })
	s := &stepper{run: r, ring: ring, replica: replica.New(r.trainer, r.recipe.Rule())}
	s.grad = make([]float32, len(r.trainer.Params()))
	s.accum = allreduce.NewAccum(len(s.grad), r.recipe.MaxMicros(), -40)
	return s
}

func compareLosses(t *testing.T, ours, theirs []float64, limits [2]float64) {
	t.Helper()
	if len(ours) != curveSteps || len(theirs) != curveSteps {
		t.Fatalf("%d steps here, %d recorded; want %d", len(ours), len(theirs), curveSteps)
	}
	var first, worst float64
	for i := range firstSteps {
		first = max(first, math.Abs(ours[i]-theirs[i]))
	}
	for i := 0; i < curveSteps; i += meanOver {
		a, b := mean(ours[i:i+meanOver]), mean(theirs[i:i+meanOver])
		worst = max(worst, math.Abs(a-b)/b)
	}
	t.Logf("first %d steps within %.2g; means of %d steps within %.2g; loss %.3f to %.3f", firstSteps, first, meanOver, worst, theirs[0], mean(theirs[curveSteps-meanOver:]))
	if !(first <= limits[0]) || !(worst <= limits[1]) {
		t.Errorf("first steps apart by %g, limit %g; means by %g, limit %g", first, limits[0], worst, limits[1])
	}
	if last := mean(theirs[curveSteps-meanOver:]); last > theirs[0]/2 {
		t.Errorf("loss went from %g to %g: a run that hardly learns proves little", theirs[0], last)
	}
}

func mean(x []float64) (m float64) {
	for _, v := range x {
		m += v / float64(len(x))
	}
	return m
}

// dumpInitial writes base/ and adapter/, from which both sides start.
func dumpInitial(t *testing.T, dir string, r run, files fstest.MapFS) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "base"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, f := range files {
		if file, ok := strings.CutPrefix(name, recipe.BaseDir+"/"); ok {
			writeFile(t, filepath.Join(dir, "base", file), f.Data)
		}
	}
	must(r.recipe.WriteModel(filepath.Join(dir, "adapter"), r.trainer, ""))(t)
}

func dumpRun(t *testing.T, dir string, r run, ours recording) {
	t.Helper()
	out := struct {
		recording
		Job   map[string]float64 `json:"job"`
		Steps [][][]sequence     `json:"steps"`
	}{ours, optimiser(r.recipe.Job), steps(r.recipe)}
	writeFile(t, filepath.Join(dir, "run.json"), must(json.Marshal(out))(t))
}
