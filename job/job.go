// Package job reads what a user wants trained: one YAML file, in the words people already know.
//
// The canonical words are axolotl's; those of Hugging Face's Trainer, PEFT, LLaMA-Factory, TRL and mlx-lm are
// accepted as aliases (Keys lists them all). Reading is strict, because a mistyped hyper-parameter that is silently
// ignored costs a day: an unknown key, a value of the wrong type or out of range, and two names of the same thing
// with different values are errors that quote the line. All mistakes of a file are reported at once.
//
// Every default is filled in by Parse, so a Job says all that it means and Job.YAML writes all of it: the canonical
// text is the identity of a job. Parse(j.YAML()) is j again.
//
// Why not decode into structs with the YAML library: a library decodes what it can and knows neither aliases nor
// ranges, and 2e-4 is a string to most of them when the type is not known. Here one table (keys.go) says for each
// key its names, where it is kept, what it must look like and what it means; parsing, printing, docs/job.md and the
// example file are all made from it.
package job

import (
	"crypto/sha256"
	"path/filepath"
)

// Words that fields hold.
const (
	LoRA  = "lora"  // adapter
	QLoRA = "qlora" // adapter in a file: LoRA with LoadIn4Bit

	NewLoRA = "new"  // Key.Only: LoRA that does not start from an adapter
	Full    = "full" // adapter: all weights are trained

	InitRandom = "random" // init: weights are drawn from the seed

	AllLinear = "all-linear" // lora_target_modules: every linear layer but the output head

	AdamW     = "adamw" // optimizer: as in torch
	WireInt16 = "int16" // reduce_wire: coarser units, see replica.Units

	DeviceCPU  = "cpu"  // device: the processor, even where there is a GPU
	DeviceCUDA = "cuda" // device: a GPU, or nothing

	AdamW8 = "adamw_8bit" // optimizer: as in bitsandbytes, moments in 8 bits

	LoRAInitDefault = "default" // lora_init: PEFT's default, A uniform in +-1/sqrt(in), B zero

	DifficultyHeuristic = "heuristic" // difficulty: words/100 + distinct words/words
	DifficultyColumn    = "column:"   // difficulty: prefix of the name of a numeric column
)

// Job is a training job. Field names are those of the canonical keys. Paths are kept as they are written; Resolve
// makes them absolute.
type Job struct {
	Name         string
	BaseModel    string
	Adapter      string // LoRA or Full
	Init         string // "" or InitRandom
	LoadIn4Bit   bool   // the frozen base in NF4
	QuantType    string // "nf4"
	DoubleQuant  bool
	QuantCompute string // "f32", "bf16": the same as DType
	LoraModelDir string // PEFT folder with the adapter to start from; "" = a new one

	LoraR             int
	LoraAlpha         float64
	LoraDropout       float64
	LoraTargetModules Targets
	LoraInit          string
	LoraExclude       Targets
	LoraRankPattern   map[string]int
	LoraAlphaPattern  map[string]float64
	LoraModulesToSave []string
	PeftUseRSLoRA     bool
	PeftUseDoRA       bool
	PeftBias          string // "" or lora_only

	Datasets     []Dataset
	TestDatasets []Dataset
	ValSetSize   float64 // below 1: fraction of the examples; from 1: their number

	Curriculum string // none, sorted or paced
	Difficulty string // DifficultyHeuristic or DifficultyColumn + name

	TaskPrefix     bool    // "[TASK] " before the prompt
	MixTemperature float64 // 0 = off: data sets are mixed by their weights

	SequenceLen          int
	ExcessLengthStrategy string // drop, truncate or raise
	TrainOnInputs        bool
	SamplePacking        bool // batch sizes count rows of SequenceLen tokens that are filled with whole examples
	MicroBatchSize       int
	GlobalBatchSize      int
	GradientAccumulation int     // ceil(global / micro)
	NumEpochs            float64 // counts only when MaxSteps is 0
	MaxSteps             int
	LearningRate         float64
	LRScheduler          string // cosine, linear or constant
	WarmupSteps          int
	WarmupRatio          float64 // of all steps; counts only when WarmupSteps is 0
	WeightDecay          float64
	AdamBeta1, AdamBeta2 float64
	AdamEpsilon          float64
	MaxGradNorm          float64 // 0 = no clipping
	ReduceWire           string  // "" (exact) or WireInt16
	Seed                 uint64
	LoggingSteps         int
	EvalSteps            int // 0 = only at the end
	SaveSteps            int // 0 = only at the end
	SaveTotalLimit       int // checkpoints kept; 0 = all
	OutputDir            string
	DType                string
	Device               string  // "" (the GPU where there is one), DeviceCPU or DeviceCUDA
	Optimizer            string  // AdamW or AdamW8
	NEFTuneAlpha         float64 // noise on the embeddings; 0 = none
	LoraPlusRatio        float64 // learning rate of lora_B over that of lora_A; 0 = 1

	EarlyStopping          int     // evaluations without an improvement that end the run; 0 = none
	EarlyStoppingThreshold float64 // what the loss must fall by to be an improvement
	LoadBest               bool    // the result is that of the best evaluation
	BestMetric             string  // "eval_loss"
	SkipNaN                int     // steps in a row that are skipped if a gradient is not finite
}

// Targets names the modules that get an adapter, by PEFT's rules: either a list of name endings (AllLinear stands
// for every linear layer but the head), or one regular expression that matches the whole name.
type Targets struct {
	Names []string
	Regex string
}

// Dataset is one file. Empty field names mean the usual ones (package data).
type Dataset struct {
	Path string
	Type string // auto, text, completion, alpaca, chat, or a domain: legal, medical, code, finance

	Task               string  // of all its records
	Weight             float64 // share in the mixture, relative to the others; 0 = 1
	PromptTemplate     string  // with {columns}; instead of a type
	CompletionTemplate string

	FieldText        string
	FieldPrompt      string
	FieldCompletion  string
	FieldInstruction string
	FieldInput       string
	FieldOutput      string
	FieldSystem      string
	FieldMessages    string
	FieldRole        string
	FieldContent     string
	FieldDifficulty  string // numeric column; overrides the job's difficulty for this file
}

// Warmup is the number of warm-up steps of a run of the given length: warmup_steps, else ceil(warmup_ratio * steps)
// as in Hugging Face's Trainer.
func (j Job) Warmup(steps int) int {
	if j.WarmupSteps > 0 {
		return j.WarmupSteps
	}
	return ceil(j.WarmupRatio * float64(steps))
}

// Digest identifies the job: SHA-256 of a version line and the canonical YAML.
func (j Job) Digest() [32]byte {
	return sha256.Sum256(append([]byte("lorad-job/1\n"), j.YAML()...))
}

// Resolve returns the job with its relative paths taken from dir. Names that are not paths, such as an embedded
// base ("embedded:..."), are left as they are by giving keep, which may be nil.
func (j Job) Resolve(dir string, keep func(string) bool) Job {
	abs := func(p string) string {
		if p == "" || filepath.IsAbs(p) || keep != nil && keep(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	each := func(in []Dataset) []Dataset {
		out := append([]Dataset(nil), in...)
		for i := range out {
			out[i].Path = abs(out[i].Path)
		}
		return out
	}
	j.BaseModel, j.LoraModelDir, j.OutputDir = abs(j.BaseModel), abs(j.LoraModelDir), abs(j.OutputDir)
	j.Datasets, j.TestDatasets = each(j.Datasets), each(j.TestDatasets)
	return j
}
