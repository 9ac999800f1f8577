package job

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the recorded error texts")

const head = "base_model: base\ndatasets: train.jsonl\n"

func parse(t interface{ Fatalf(string, ...any) }, yaml string) Job {
	j, err := Parse([]byte(yaml))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, yaml)
	}
	return j
}

// TestErrors holds the text that a user sees for every mistake. Review changes of testdata/errors.txtar as a diff.
func TestErrors(t *testing.T) {
	const path = "testdata/errors.txtar"
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(archive.Files); i += 2 {
		in, want := archive.Files[i], &archive.Files[i+1]
		_, err := Parse(in.Data)
		if err == nil {
			t.Errorf("%s: accepted", in.Name)
			continue
		}
		if got := []byte(err.Error() + "\n"); !bytes.Equal(got, want.Data) {
			if !*update {
				t.Errorf("%s:\n got %swant %s", in.Name, got, want.Data)
			}
			want.Data = got
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDefaults(t *testing.T) {
	j := parse(t, head)
	want := `name: ""
base_model: base
adapter: lora
dtype: f32
lora_r: 16
lora_alpha: 32
lora_dropout: 0.05
lora_target_modules: [all-linear]
lora_init: default
peft_use_rslora: false
lora_model_dir: ""
datasets:
  - path: train.jsonl
    type: auto
val_set_size: 0
sequence_len: 512
excess_length_strategy: truncate
train_on_inputs: false
curriculum: none
difficulty: heuristic
micro_batch_size: 4
global_batch_size: 16
gradient_accumulation_steps: 4
num_epochs: 3
max_steps: 0
optimizer: adamw
learning_rate: 0.0002
lr_scheduler: cosine
warmup_steps: 0
warmup_ratio: 0.03
weight_decay: 0
adam_beta1: 0.9
adam_beta2: 0.999
adam_epsilon: 1e-08
max_grad_norm: 1
seed: 42
output_dir: lorad-out
logging_steps: 1
eval_steps: 0
save_steps: 100
save_total_limit: 3
`
	if got := string(j.YAML()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestAliases: other tools' words mean the same job.
func TestAliases(t *testing.T) {
	for _, c := range []struct{ words, canonical string }{
		{"lora_rank: 8", "lora_r: 8"},
		{"r: 8", "lora_r: 8"},
		{"finetuning_type: lora", "adapter: lora"},
		{"lora_target: all", "lora_target_modules: all-linear"},
		{"lora_target: q_proj,v_proj", "lora_target_modules: [v_proj, q_proj]"},
		{"target_modules: [q_proj]", "lora_target_modules: q_proj"},
		{"lora_target_linear: true", ""},
		{"lora_target_linear: false\nlora_target_modules: [q_proj]", "lora_target_modules: [q_proj]"},
		{"cutoff_len: 128", "sequence_len: 128"},
		{"max_seq_length: 128", "sequence_len: 128"},
		{"max_length: 128", "sequence_len: 128"},
		{"max_seq_len: 128", "sequence_len: 128"},
		{"per_device_train_batch_size: 2", "micro_batch_size: 2"},
		{"batch_size: 2", "micro_batch_size: 2"},
		{"grad_accumulation_steps: 2", "gradient_accumulation_steps: 2"},
		{"num_train_epochs: 2.5", "num_epochs: 2.5"},
		{"epochs: 2", "num_epochs: 2"},
		{"iters: 50", "max_steps: 50"},
		{"max_steps: -1", "max_steps: 0"},
		{"lr_scheduler_type: linear", "lr_scheduler: linear"},
		{"lr: 1e-3", "learning_rate: 0.001"},
		{"optim: adamw_torch", "optimizer: adamw"},
		{"clip_grad_norm: 0.5", "max_grad_norm: .5"},
		{"train_on_prompt: true", "train_on_inputs: true"},
		{"mask_prompt: true", "train_on_inputs: false"},
		{"mask_prompt: false", "train_on_inputs: true"},
		{"val_size: 0.1", "val_set_size: 0.1"},
		{"bf16: auto", "dtype: f32"},
		{"bf16: true", "dtype: bf16"},
		{"load_in_4bit: true\nbnb_4bit_compute_dtype: bfloat16", "load_in_4bit: true\ndtype: bf16"},
		{"bf16: false\nfp16: false", "dtype: float32"},
		{"log_every_n_steps: 5", "logging_steps: 5"},
		{"steps_per_report: 5", "logging_steps: 5"},
		{"steps_per_eval: 5", "eval_steps: 5"},
		{"save_every: 5", "save_steps: 5"},
		{"gradient_checkpointing: true\nsample_packing: false\npacking: false\npacked: false\ngrad_checkpoint: true", ""},
		{"report_to: none\nhub_model_id:\nresume_from_checkpoint:\nauto_resume_from_checkpoints: true", ""},
		{"load_in_4bit: false\nload_in_8bit: false", ""},
		{"lora_r: 16\nlora_rank: 16", ""}, // the same twice is no contradiction
		{"peft_init_lora_weights: true", "lora_init: default"},
	} {
		got, want := parse(t, head+c.words), parse(t, head+c.canonical)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n is not %s\n%s", c.words, c.canonical, got.YAML())
		}
	}
	for _, model := range []string{"base_model", "model_name_or_path", "model", "base_model_name_or_path"} {
		for _, data := range []string{"dataset: a.jsonl, b.jsonl", "datasets: [a.jsonl, b.jsonl]", "datasets:\n  - path: a.jsonl\n  - {path: b.jsonl, type: auto, split: train}"} {
			j := parse(t, model+": m\n"+data)
			if j.BaseModel != "m" || !reflect.DeepEqual(j.Datasets, []Dataset{{Path: "a.jsonl", Type: "auto"}, {Path: "b.jsonl", Type: "auto"}}) {
				t.Errorf("%s, %s: %+v", model, data, j.Datasets)
			}
		}
	}
}

func TestNotesSayWhatHasNoEffect(t *testing.T) {
	_, notes, err := ParseNotes([]byte(head + "gradient_checkpointing: true\n"))
	if err != nil || !slices.Equal(notes, []string{"gradient_checkpointing: no effect: results are the same with and without"}) {
		t.Errorf("%q, %v", notes, err)
	}
}

func TestBatches(t *testing.T) {
	for yaml, want := range map[string][3]int{
		"":                     {4, 4, 16},
		"micro_batch_size: 8":  {8, 4, 32},
		"global_batch_size: 8": {4, 2, 8},
		"global_batch_size: 9": {4, 3, 9}, // the last micro-batch of a step has one example
		"global_batch_size: 3": {3, 1, 3},
		"micro_batch_size: 2\ngradient_accumulation_steps: 8":                        {2, 8, 16},
		"global_batch_size: 16\nmicro_batch_size: 2\ngradient_accumulation_steps: 8": {2, 8, 16},
	} {
		j := parse(t, head+yaml)
		if got := [3]int{j.MicroBatchSize, j.GradientAccumulation, j.GlobalBatchSize}; got != want {
			t.Errorf("%s: %v, want %v", yaml, got, want)
		}
	}
}

func TestFullTrainingHasNoLoRAKeys(t *testing.T) {
	j := parse(t, head+"adapter: full\ninit: random")
	if j.LoraR != 0 || j.LoraTargetModules.Names != nil || bytes.Contains(j.YAML(), []byte("lora_")) {
		t.Errorf("%s", j.YAML())
	}
	if j.LearningRate != fullLearningRate {
		t.Errorf("learning rate %v", j.LearningRate)
	}
}

func TestWarmup(t *testing.T) {
	for yaml, want := range map[string]int{"": 3, "warmup_steps: 7": 7, "warmup_ratio: 0.07": 7, "warmup_ratio: 0.071": 8, "warmup_steps: 0": 0} {
		if got := parse(t, head+yaml).Warmup(100); got != want {
			t.Errorf("%q: %d warm-up steps of 100, want %d", yaml, got, want)
		}
	}
}

func TestResolve(t *testing.T) {
	j := parse(t, "base_model: embedded:base\ndatasets: [a.jsonl, /abs/b.jsonl]\noutput_dir: out")
	got := j.Resolve("/jobs", func(p string) bool { return strings.HasPrefix(p, "embedded:") })
	if got.BaseModel != "embedded:base" || got.Datasets[0].Path != "/jobs/a.jsonl" || got.Datasets[1].Path != "/abs/b.jsonl" ||
		got.OutputDir != "/jobs/out" || got.LoraModelDir != "" || j.Datasets[0].Path != "a.jsonl" {
		t.Errorf("%+v", got)
	}
}

// someJob draws a job that Parse could have returned.
func someJob(t *rapid.T) Job {
	j, err := Parse([]byte(head + "adapter: " + rapid.SampledFrom([]string{LoRA, Full}).Draw(t, "adapter")))
	if err != nil {
		t.Fatal(err)
	}
	line := rapid.StringOf(rapid.Rune().Filter(func(r rune) bool { return r != '\n' && r != '\r' && r != 0 && r != 0xfffd }))
	name := rapid.StringMatching(`[a-z_0-9]+`)
	j.Name, j.BaseModel, j.OutputDir = line.Draw(t, "name"), line.Draw(t, "base")+"x", line.Draw(t, "out")
	j.Seed = rapid.Uint64().Draw(t, "seed")
	j.LearningRate = rapid.Float64Range(1e-300, 1e300).Draw(t, "lr")
	j.NumEpochs = rapid.Float64Range(1e-5, 1e5).Draw(t, "epochs")
	j.MicroBatchSize = rapid.IntRange(1, 50).Draw(t, "micro")
	j.GlobalBatchSize = rapid.IntRange(j.MicroBatchSize, 500).Draw(t, "global")
	j.GradientAccumulation = (j.GlobalBatchSize-1)/j.MicroBatchSize + 1
	j.WarmupRatio = rapid.Float64Range(0, 0.99).Draw(t, "warm-up")
	j.TrainOnInputs = rapid.Bool().Draw(t, "inputs")
	j.ReduceWire = rapid.SampledFrom([]string{"", WireInt16}).Draw(t, "wire")
	if j.Adapter == LoRA {
		if j.LoadIn4Bit = rapid.Bool().Draw(t, "4 bits"); j.LoadIn4Bit {
			j.QuantType, j.QuantCompute, j.DoubleQuant = "nf4", "f32", rapid.Bool().Draw(t, "nested")
		}
		j.PeftUseDoRA = rapid.Bool().Draw(t, "dora")
		j.PeftBias = rapid.SampledFrom([]string{"", "lora_only"}).Draw(t, "bias")
		j.LoraInit = rapid.SampledFrom([]string{LoRAInitDefault, "gaussian"}).Draw(t, "init")
		if rapid.Bool().Draw(t, "patterns") {
			j.LoraRankPattern = map[string]int{"q_proj": 3, `layers\.\d+\.mlp.*`: 9}
			j.LoraAlphaPattern = map[string]float64{"^model.x: y": 0.5}
			j.LoraModulesToSave, j.LoraExclude = []string{"embed_tokens", "lm_head"}, Targets{Regex: ".*[0].*"}
		}
		j.LoraPlusRatio = rapid.SampledFrom([]float64{0, 16}).Draw(t, "ratio")
		j.LoraTargetModules.Names = slices.Compact(slices.Sorted(slices.Values(rapid.SliceOfN(name.Filter(func(s string) bool { return s != "all" }), 1, 4).Draw(t, "targets"))))
		j.LoraAlpha = rapid.Float64Range(1e-3, 1e3).Draw(t, "alpha")
	}
	j.Datasets = []Dataset{{Path: line.Draw(t, "path") + "x", Type: "chat", FieldRole: line.Draw(t, "role")}, {Path: "b", Type: "auto"}}
	return j
}

func TestParseOfYAMLIsTheJobAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := someJob(t)
		got := parse(t, string(j.YAML()))
		if !reflect.DeepEqual(got, j) {
			t.Fatalf("got\n%s\nwant\n%s", got.YAML(), j.YAML())
		}
		if got.Digest() != j.Digest() {
			t.Fatal("equal jobs, different digests")
		}
	})
}

func TestDigestTellsJobsApart(t *testing.T) {
	a, b := parse(t, head), parse(t, head+"lora_dropout: 0.1")
	if a.Digest() == b.Digest() {
		t.Error("lora_dropout does not reach the digest")
	}
}

func TestExampleIsAJob(t *testing.T) {
	text := string(Example())
	parse(t, text)
	// The lines behind a comment sign are part of the example: each must be acceptable too.
	for _, line := range strings.Split(text, "\n") {
		shown, ok := strings.CutPrefix(line, "#")
		if !ok || strings.HasPrefix(shown, " ") {
			continue
		}
		key, _, _ := strings.Cut(shown, ":")
		yaml := head + shown
		if k, _ := find(jobKeys(), key); k.Only == Full {
			yaml += "\nadapter: full"
		} else if k.Only == QLoRA {
			yaml += "\nload_in_4bit: true"
		}
		parse(t, yaml)
	}
	for _, k := range jobKeys() {
		if !strings.Contains(text, k.Name+":") {
			t.Errorf("%s is not in the example", k.Name)
		}
	}
}

func TestKeysHaveOneMeaning(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range slices.Concat(names(jobKeys()), aliasNames(aliases())) {
		if seen[n] {
			t.Errorf("%s names two things", n)
		}
		seen[n] = true
	}
	for _, n := range ignored() {
		if seen[n.name] {
			t.Errorf("%s is a key and ignored", n.name)
		}
	}
	for _, k := range Keys() {
		if k.Doc == "" || k.Type == "" {
			t.Errorf("%s: no doc or type: %+v", k.Name, k)
		}
	}
	// Every field of Job has a key: nothing can be set by code alone.
	var j Job
	kept := map[string]bool{}
	for _, k := range jobKeys() {
		kept[fmt.Sprintf("%p", k.at(&j))] = true
	}
	v := reflect.ValueOf(&j).Elem()
	for i := range v.NumField() {
		if !kept[fmt.Sprintf("%p", v.Field(i).Addr().Interface())] {
			t.Errorf("field %s has no key", v.Type().Field(i).Name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{head, "a: &x [*x]", "<<: {a: 1}", "? [a]\n: b", "lora_r: !!str 3", "- - -", "\x00", "a:\n\t- b", "datasets: [[[]]]", "%YAML 1.2\n---\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, yaml []byte) { tryParse(t, yaml) })
}

func tryParse(t testing.TB, yaml []byte) {
	j, err := Parse(yaml)
	if err != nil {
		_ = err.Error()
		return
	}
	again, err := Parse(j.YAML())
	if err != nil || !reflect.DeepEqual(again, j) {
		t.Fatalf("%v\n%s\nfrom %q", err, j.YAML(), yaml)
	}
}

// What people bring from other tools is accepted where it means nothing else here, and otherwise told what to write.
func TestKeysOfOtherTools(t *testing.T) {
	const head = "base_model: m\n"
	accepted := head + `datasets: [{path: d.jsonl, type: chat_template, roles_to_train: [assistant], train_on_eos: turn, chat_template: tokenizer_default, ds_type: json}]
wandb_project:
deepspeed:
special_tokens:
save_strategy: steps
model_type: AutoModelForCausalLM
fsdp: []
`
	if _, err := Parse([]byte(accepted)); err != nil {
		t.Error(err)
	}
	for line, want := range map[string]string{
		"evals_per_epoch: 4":             "give eval_steps",
		"save_strategy: epoch":           "give save_steps",
		"deepspeed: {zero: 3}":           "holds the whole model",
		"special_tokens: {pad_token: x}": "the base model's",
		"rl: dpo":                        "not on preferences",
		"ab: 1":                          "no key of a similar name",
		`lora_r: "4"`:                    `got "4" in quotes`,
		"test_datasets: [{path: a, roles_to_train: [user]}]": "the assistant says",
	} {
		_, err := Parse([]byte(head + "datasets: [{path: d.jsonl}]\n" + line + "\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}
