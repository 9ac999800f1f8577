package job

import (
	"fmt"
	"slices"
)

// defaults are the tutorial's where it has one (rank 16, alpha 32, cosine with warm-up) and otherwise those of
// axolotl's LoRA examples and of Hugging Face's Trainer. What depends on other keys is filled in by finish.
func defaults() Job {
	return Job{
		Adapter: LoRA, DType: "f32", Optimizer: AdamW,
		QuantType: "nf4", DoubleQuant: true, QuantCompute: "f32",
		LoraR: 16, LoraAlpha: 32, LoraDropout: 0.05, LoraInit: LoRAInitDefault,
		LoraTargetModules: Targets{Names: []string{AllLinear}},
		Curriculum:        "none", Difficulty: DifficultyHeuristic,
		SequenceLen: 512, ExcessLengthStrategy: "truncate",
		MicroBatchSize: 4, GradientAccumulation: 4,
		NumEpochs: 3, LRScheduler: "cosine",
		AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1,
		Seed: 42, LoggingSteps: 1, SaveSteps: 100, SaveTotalLimit: 3,
		OutputDir: "lorad-out",
	}
}

// Defaults that depend on the kind of training: TRL's documentation gives LoRA ten times the rate of full training.
const (
	loraLearningRate = 2e-4
	fullLearningRate = 2e-5
	warmupRatio      = 0.03
)

// finish fills in what depends on other keys and checks keys against each other.
func (d *doc) finish(j *Job, set map[string]given) {
	d.require(set, "base_model", j.BaseModel == "", "the folder of the model to start from")
	d.require(set, "datasets", len(j.Datasets) == 0, "a JSONL file to train on")
	d.quantised(j, set)
	d.precision(j, set)
	d.kind(j, set)
	d.batches(j, set)
	d.warmup(j, set)
	d.validation(j, set)
	if !has(set, "learning_rate") {
		j.LearningRate = loraLearningRate
		if j.Adapter == Full {
			j.LearningRate = fullLearningRate
		}
	}
}

func has(set map[string]given, name string) bool { _, ok := set[name]; return ok }

func (d *doc) require(set map[string]given, name string, missing bool, what string) {
	failed := slices.ContainsFunc(d.errs, func(e *Error) bool { return e.canonical() == name })
	if missing && !failed {
		d.fail(set[name].at, name, "missing: give %s", what)
	}
}

// canonical is the job's key that the mistake is about.
func (e *Error) canonical() string {
	if k, ok := find(jobKeys(), e.Key); ok {
		return k.Name
	}
	return e.Key
}

// quantised makes qlora the LoRA with load_in_4bit that it is.
func (d *doc) quantised(j *Job, set map[string]given) {
	if j.Adapter != QLoRA {
		return
	}
	if g, ok := set["load_in_4bit"]; ok && !j.LoadIn4Bit {
		d.fail(g.at, g.name, "contradiction: adapter: qlora keeps the base in 4 bits; give true, or adapter: lora")
	}
	j.Adapter, j.LoadIn4Bit = LoRA, true
}

// precision makes the two keys of the type agree: there is one, and it is that of products with frozen weights.
func (d *doc) precision(j *Job, set map[string]given) {
	dtype, ofDType := set["dtype"]
	compute, ofCompute := set["bnb_4bit_compute_dtype"]
	switch {
	case j.Adapter == Full && j.DType != "f32":
		d.fail(dtype.at, dtype.name, "contradiction: adapter: full computes in f32; remove the key")
	case !j.LoadIn4Bit:
	case ofCompute && ofDType && j.DType != j.QuantCompute:
		d.fail(compute.at, compute.name, "contradiction: dtype is %s, and all products with frozen weights are computed in one type; remove one of the keys", j.DType)
	case ofCompute:
		j.DType = j.QuantCompute
	default:
		j.QuantCompute = j.DType
	}
}

// kind refuses keys of the other kind of training and leaves none of their defaults behind.
func (d *doc) kind(j *Job, set map[string]given) {
	for _, k := range jobKeys() {
		if j.has(k.Only) {
			continue
		}
		if g, ok := set[k.Name]; ok && !isZero(k.at(j)) {
			d.fail(g.at, g.name, "contradiction: has no meaning %s; remove the key", besides(k.Only, j, set))
		}
		setZero(k.at(j))
	}
}

// besides is what a key has no meaning beside.
func besides(only string, j *Job, set map[string]given) string {
	switch {
	case j.Adapter != LoRA || only == Full:
		return "with adapter: " + j.Adapter
	case only == QLoRA:
		return "without load_in_4bit: true"
	}
	g := set["lora_model_dir"]
	return fmt.Sprintf("beside %s on line %d, whose adapter is trained on as it is", g.name, g.at.Position.Line)
}

// batches makes the three batch keys agree: global = micro * accumulation, where the last micro-batch of a step may
// be short.
func (d *doc) batches(j *Job, set map[string]given) {
	if !has(set, "global_batch_size") {
		j.GlobalBatchSize = j.MicroBatchSize * j.GradientAccumulation
		return
	}
	if j.MicroBatchSize > j.GlobalBatchSize {
		if g, ok := set["micro_batch_size"]; ok {
			d.fail(g.at, g.name, "contradiction: %d is more than global_batch_size %d", j.MicroBatchSize, j.GlobalBatchSize)
			return
		}
		j.MicroBatchSize = j.GlobalBatchSize
	}
	micros := (j.GlobalBatchSize-1)/j.MicroBatchSize + 1
	if g, ok := set["gradient_accumulation_steps"]; ok && j.GradientAccumulation != micros {
		d.fail(g.at, g.name, "contradiction: global_batch_size %d in micro-batches of %d makes %d, not %d; remove the key",
			j.GlobalBatchSize, j.MicroBatchSize, micros, j.GradientAccumulation)
	}
	j.GradientAccumulation = micros
}

func (d *doc) warmup(j *Job, set map[string]given) {
	if !has(set, "warmup_steps") && !has(set, "warmup_ratio") {
		j.WarmupRatio = warmupRatio
	}
	if j.WarmupSteps > 0 && j.WarmupRatio > 0 {
		g := set["warmup_ratio"]
		d.fail(g.at, g.name, "contradiction: warmup_steps is given too; keep one")
	}
}

func (d *doc) validation(j *Job, set map[string]given) {
	if len(j.TestDatasets) > 0 && j.ValSetSize > 0 {
		g := set["val_set_size"]
		d.fail(g.at, g.name, "contradiction: test_datasets are given too; keep one")
	}
	for _, name := range []string{"early_stopping_patience", "load_best_model_at_end"} {
		key, _ := find(jobKeys(), name)
		g, ok := set[name]
		switch wanted := ok && !isZero(key.at(j)); {
		case !wanted:
		case len(j.TestDatasets) == 0 && j.ValSetSize == 0:
			d.fail(g.at, g.name, "contradiction: there is no validation loss to go by; give val_set_size or test_datasets, and eval_steps")
		case j.EvalSteps == 0:
			d.fail(g.at, g.name, "contradiction: without eval_steps there is only the evaluation at the end; give how often")
		}
	}
}
