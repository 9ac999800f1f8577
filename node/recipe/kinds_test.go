package recipe_test

import (
	"bytes"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"lorad/embedded"
	"lorad/engine/cpu"
	"lorad/engine/llama"
	"lorad/job"
	"lorad/model/peft"
	"lorad/node/recipe"
)

// Every kind of adapter that a job can ask for trains, is written as PEFT has it, and computes the same once it is read again.
func TestKindsOfAdapters(t *testing.T) {
	const head = "base_model: base\ndatasets: data/0.jsonl\nmax_steps: 2\nmicro_batch_size: 2\nglobal_batch_size: 4\nlearning_rate: 1e-2\nwarmup_steps: 0\nwarmup_ratio: 0\nsequence_len: 128\n"
	for name, text := range map[string]string{
		"qlora":         "adapter: qlora\noptimizer: paged_adamw_8bit\n",
		"dora, 4 bits":  "load_in_4bit: true\nbnb_4bit_use_double_quant: false\nuse_dora: true\nlora_dropout: 0.2\nloraplus_lr_ratio: 4\n",
		"rslora":        "use_rslora: true\ninit_lora_weights: gaussian\nrank_pattern: {q_proj: 3}\nalpha_pattern: {down_proj: 7}\nexclude_modules: [k_proj]\n",
		"pissa":         "init_lora_weights: pissa_niter_2\nlora_r: 4\nuse_rslora: true\nrank_pattern: {q_proj: 3}\n",
		"saved modules": "lora_target_modules: [q_proj]\nmodules_to_save: [layers.4.mlp.down_proj, model.norm]\nbias: lora_only\nweight_decay: 0.1\n",
	} {
		t.Run(name, func(t *testing.T) {
			files := inputs(t).(fstest.MapFS)
			lines := bytes.SplitAfterN(embedded.LegalTrain(), []byte("\n"), 9)
			files["data/0.jsonl"] = &fstest.MapFile{Data: bytes.Join(lines[:8], nil)}
			r := must(recipe.Load(must(job.Parse([]byte(head+text)))(t), files))(t)
			run := run{recipe: r, trainer: must(r.Trainer(2))(t)}
			takeSteps(t, &run)
			dir := t.TempDir()
			must(r.WriteModel(dir, run.trainer, "some/base"))(t)
			sameLogits(t, r, run, dir)
		})
	}
}

func sameLogits(t *testing.T, r *recipe.Recipe, run run, dir string) {
	t.Helper()
	cfg, tensors, err := peft.Read(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	ad := llama.Adapter{LoRA: &cfg, Init: map[string][]float32{}}
	for name, x := range tensors {
		ad.Init[name] = x.Data
	}
	if r.Job.LoadIn4Bit {
		ad.FourBit = &llama.FourBit{Nested: r.Job.DoubleQuant}
	}
	again := must(llama.New[float32](r.Base.Config(), r.Base, ad, cpu.New(1)))(t)
	prompt := r.Set.Train[0].Tokens
	want, got := must(run.trainer.Logits(prompt))(t), must(again.Logits(prompt))(t)
	apart := 0.0 // PiSSA trained on a residual that the folder's base is not
	if strings.HasPrefix(r.Job.LoraInit, "pissa") {
		apart = 1e-5 * float64(slices.Max(want))
	}
	for i := range want {
		if math.Abs(float64(want[i]-got[i])) > apart {
			t.Fatalf("logit %d: %v after training, %v from the folder", i, want[i], got[i])
		}
	}
	bare := must(llama.New[float32](r.Base.Config(), r.Base, llama.Adapter{}, cpu.New(1)))(t)
	for i, v := range must(bare.Logits(prompt))(t) {
		if v != got[i] {
			return
		}
	}
	t.Error("the adapter changes nothing")
}
