// Package recipe says what a job means in numbers: from a job and its input files to the trainer, the batches of
// every step and the files that come out.
//
// Inputs come as a file system with portable names (base/, adapter/, data/0.jsonl, test/0.jsonl), so the home node of
// a run, which has them on its disk, and a node that fetched them by hash build exactly the same recipe; Set.Hash
// proves it before the first step.
package recipe

import (
	"fmt"
	"io"
	"io/fs"
	"slices"

	"lorad/data"
	"lorad/data/curriculum"
	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/estimate"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/engine/optim"
	"lorad/job"
	"lorad/model"
	"lorad/model/peft"
	"lorad/model/tokenizer"
	"lorad/node/best"
	"lorad/node/replica"
)

// Directories of the input file system.
const (
	BaseDir    = "base"
	AdapterDir = "adapter"
)

// Recipe is everything that determines a run. It is read-only once loaded.
type Recipe struct {
	Job       job.Job
	Base      *model.Folder
	Tokenizer *tokenizer.Tokenizer
	Set       data.Set
	Plan      *curriculum.Plan

	inputs fs.FS
	val    [][]int // micro-batches of the validation set
}

// Load reads the inputs of a job whose paths are portable names.
func Load(j job.Job, inputs fs.FS) (*Recipe, error) {
	base, err := fs.Sub(inputs, BaseDir)
	if err != nil {
		return nil, err
	}
	r := &Recipe{Job: j, inputs: inputs}
	if r.Base, err = model.Open(base); err != nil {
		return nil, fmt.Errorf("base_model: %w", err)
	}
	if r.Tokenizer, err = r.Base.Tokenizer(); err != nil {
		return nil, fmt.Errorf("base_model: %w", err)
	}
	if r.Set, err = data.Build(data.SourcesOf(j, r.open), data.OptionsOf(j), r.Tokenizer, r.Base.ChatTemplate()); err != nil {
		return nil, err
	}
	if r.Plan, err = PlanOf(j, r.Set.Train); err != nil {
		return nil, err
	}
	r.val = chunks(r.Set.Val, j)
	return r, nil
}

func (r *Recipe) open(name string) (io.ReadCloser, error) { return r.inputs.Open(name) }

// loraConfig is the adapter that the job describes.
func (r *Recipe) loraConfig() *peft.LoraConfig {
	j := r.Job
	c := &peft.LoraConfig{
		R:              j.LoraR,
		Alpha:          j.LoraAlpha,
		Dropout:        j.LoraDropout,
		TargetModules:  j.LoraTargetModules.Names,
		TargetRegex:    j.LoraTargetModules.Regex,
		ExcludeModules: j.LoraExclude.Names,
		ExcludeRegex:   j.LoraExclude.Regex,
		RankPattern:    j.LoraRankPattern,
		AlphaPattern:   j.LoraAlphaPattern,
		UseRSLoRA:      j.PeftUseRSLoRA,
		UseDoRA:        j.PeftUseDoRA,
		Bias:           j.PeftBias,
		ModulesToSave:  j.LoraModulesToSave,
	}
	if j.LoraInit != job.LoRAInitDefault {
		c.Init = j.LoraInit
	}
	return c
}

// PlanOf is how the job orders its examples and cuts them into steps.
func PlanOf(j job.Job, examples []data.Example) (*curriculum.Plan, error) {
	s := curriculum.Spec{
		Mode:        j.Curriculum,
		Seed:        j.Seed,
		GlobalBatch: j.GlobalBatchSize,
		MicroBatch:  j.MicroBatchSize,
		Epochs:      j.NumEpochs,
		MaxSteps:    j.MaxSteps,
	}
	if j.SamplePacking {
		return curriculum.NewPacked(s, data.Difficulties(examples), rows(examples, j))
	}
	return curriculum.New(s, data.Difficulties(examples))
}

// rows are what counts as one in batch sizes: single examples, or packed ones.
func rows(examples []data.Example, j job.Job) [][]int {
	if j.SamplePacking {
		lengths := make([]int, len(examples))
		for i, e := range examples {
			lengths[i] = len(e.Tokens)
		}
		return curriculum.Pack(lengths, j.SequenceLen)
	}
	out := make([][]int, len(examples))
	for i := range out {
		out[i] = []int{i}
	}
	return out
}

// chunks cuts a validation set into micro-batches.
func chunks(examples []data.Example, j job.Job) [][]int {
	var out [][]int
	for part := range slices.Chunk(rows(examples, j), j.MicroBatchSize) {
		out = append(out, slices.Concat(part...))
	}
	return out
}

// Trainer is Planned with as much memory as it likes.
func (r *Recipe) Trainer(threads int) (engine.Trainer, error) {
	plan, err := r.Memory(threads, 0)
	if err != nil {
		return nil, err
	}
	return r.Planned(threads, plan)
}

// Planned makes the engine with its initial parameters: the same bits on every node. It takes the memory of its steps at once, as planned.
func (r *Recipe) Planned(threads int, plan estimate.Memory) (engine.Trainer, error) {
	ad, err := r.trained()
	if err != nil {
		return nil, err
	}
	if !r.Base.HasWeights() && r.Job.Init != job.InitRandom {
		return nil, fmt.Errorf("base_model: the folder has no model.safetensors; to train from random weights say adapter: full and init: random")
	}
	t, err := llama.New[float32](r.Base.Config(), r.Base, ad, cpu.New(threads))
	if err != nil {
		return nil, fmt.Errorf("base_model: %w", err)
	}
	t.Prepare(r.Largest(), plan.Keep())
	return t, nil
}

// trained says what is trained, how, and from which values.
func (r *Recipe) trained() (llama.Adapter, error) {
	ad := llama.Adapter{Full: r.Job.Adapter == job.Full, Seed: r.Job.Seed, NEFTune: r.Job.NEFTuneAlpha}
	if !ad.Full {
		cfg, init, err := r.adapter()
		if err != nil {
			return ad, err
		}
		ad.LoRA, ad.Init = cfg, init
		if r.Job.DType == "bf16" {
			ad.Precision = kernel.BF16
		}
		if r.Job.LoadIn4Bit {
			ad.FourBit = &llama.FourBit{Nested: r.Job.DoubleQuant}
		}
	}
	return ad, nil
}

// adapter is the LoRA configuration of the job, or that of the adapter it starts from, with its values.
func (r *Recipe) adapter() (*peft.LoraConfig, map[string][]float32, error) {
	if r.Job.LoraModelDir == "" {
		return r.loraConfig(), nil, nil
	}
	dir, err := fs.Sub(r.inputs, AdapterDir)
	if err != nil {
		return nil, nil, err
	}
	cfg, tensors, err := peft.Read(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("lora_model_dir: %w", err)
	}
	init := make(map[string][]float32, len(tensors))
	for name, t := range tensors {
		init[name] = t.Data
	}
	cfg.Dropout = r.Job.LoraDropout
	return &cfg, init, nil
}

// Warnings are what a person should know before the run: what became of the data, and whose LoRA shape counts.
func (r *Recipe) Warnings() []string {
	out := slices.Clone(r.Set.Report.Warnings)
	if (r.Job.EarlyStopping > 0 || r.Job.LoadBest) && len(r.val) == 0 {
		out = append(out, "val_set_size: no example is kept back for validation, so the run neither stops early nor has a best step")
	}
	if r.Job.LoraModelDir == "" {
		return out
	}
	if cfg, _, err := r.adapter(); err == nil { // an error comes up again in Trainer
		out = append(out, fmt.Sprintf("lora_model_dir: that adapter is trained on as it is, rank %d, alpha %g, on %v",
			cfg.R, cfg.Alpha, cfg.TargetModules))
	}
	return out
}

// Rule is the optimiser of the job.
func (r *Recipe) Rule() replica.Rule {
	j, steps := r.Job, r.Plan.Steps()
	return replica.Rule{
		AdamW: optim.AdamW{
			Beta1:       float32(j.AdamBeta1),
			Beta2:       float32(j.AdamBeta2),
			Eps:         float32(j.AdamEpsilon),
			WeightDecay: float32(j.WeightDecay),
		},
		EightBit: j.Optimizer == job.AdamW8,
		RatioB:   j.LoraPlusRatio,
		Schedule: optim.Schedule{Kind: j.LRScheduler, Peak: j.LearningRate, Warmup: j.Warmup(steps), Total: steps},
		MaxNorm:  j.MaxGradNorm,
		Best:     r.best(),
		Skips:    j.SkipNaN,
	}
}

// best is how the job ends early and what its result is. Without a validation set there is nothing to go by.
func (r *Recipe) best() best.Rule {
	if len(r.val) == 0 {
		return best.Rule{}
	}
	return best.Rule{Patience: r.Job.EarlyStopping, Threshold: r.Job.EarlyStoppingThreshold, Keep: r.Job.LoadBest}
}

// MaxMicros is the largest number of micro-batches that a step can have.
func (r *Recipe) MaxMicros() int {
	return (r.Job.GlobalBatchSize + r.Job.MicroBatchSize - 1) / r.Job.MicroBatchSize
}

// Micros is the number of micro-batches of the step after `done` steps.
func (r *Recipe) Micros(done uint64) int { return len(r.Plan.Batch(int(done))) }

// Work lists the tokens of each micro-batch of the step after `done` steps.
func (r *Recipe) Work(done uint64) []int { return tokens(r.Set.Train, r.Plan.Batch(int(done))) }

// ValWork lists the tokens of each micro-batch of the validation set; none = there is no such set.
func (r *Recipe) ValWork() []int { return tokens(r.Set.Val, r.val) }

func tokens(examples []data.Example, micros [][]int) []int {
	out := make([]int, len(micros))
	for i, which := range micros {
		for _, e := range which {
			out[i] += len(examples[e].Tokens)
		}
	}
	return out
}

// Labelled is the number of labels that carry loss in the whole global batch of the step after `done` steps: what the
// gradient of every micro-batch is divided by, so that tokens weigh the same wherever they are computed.
func (r *Recipe) Labelled(done uint64) int {
	n := 0
	for _, micro := range r.Plan.Batch(int(done)) {
		for _, i := range micro {
			n += r.Set.Train[i].Labelled()
		}
	}
	return n
}

// Micro is micro-batch i of the step after `done` steps.
func (r *Recipe) Micro(done uint64, i int) engine.Batch {
	return data.Gather(r.Set.Train, r.Plan.Batch(int(done))[i])
}

// ValMicros is the number of micro-batches of the validation set; 0 = there is none.
func (r *Recipe) ValMicros() int { return len(r.val) }

// Val is micro-batch i of the validation set.
func (r *Recipe) Val(i int) engine.Batch { return data.Gather(r.Set.Val, r.val[i]) }
