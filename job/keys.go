package job

import (
	"slices"
	"strings"
)

// Key describes one canonical key.
type Key struct {
	Name    string
	Aliases []string
	Type    string // in words: string, whole number, number, true or false, list ...
	Section string // heading in the example file
	Doc     string
	Values  []string // what a string may be; nil = anything
	Only    string   // kind of training the key belongs to: LoRA, NewLoRA (without lora_model_dir), QLoRA (with load_in_4bit) or Full; "" = all
	Quiet   bool     // off when zero, and then not written: a job without it keeps its identity
}

// key is a row of the table: T is the struct that the key is kept in.
type key[T any] struct {
	Key
	at    func(*T) any // pointer to the field: *string, *int, *uint64, *float64, *bool, *Targets, *[]string, *map[string]int, *map[string]float64 or *[]Dataset
	check func(v any) string
	words map[string]string // other spellings of the values
}

// alias is another name of a key whose values are spelt differently.
type alias struct {
	name, key string
	value     map[string]string // value under the alias -> value under the key; "" = as if it were not there
	refuse    string            // said of every other value
}

// none is a key of other tools that changes nothing here, or would, and is then refused with the reason.
type none struct {
	name string
	ok   []string // values that change nothing; nil = all
	why  string
}

// Keys lists the canonical keys of a job in the order in which YAML writes them, those of a data set last, as
// datasets[].NAME.
func Keys() []Key {
	out := described(jobKeys())
	for _, k := range described(datasetKeys()) {
		k.Name = "datasets[]." + k.Name
		out = append(out, k)
	}
	return out
}

func described[T any](keys []key[T]) []Key {
	var zero T
	out := make([]Key, len(keys))
	for i, k := range keys {
		out[i] = k.Key
		out[i].Type = strings.TrimPrefix(typeName(k.at(&zero)), "a ")
	}
	return out
}

func jobKeys() []key[Job] {
	return slices.Concat(modelKeys(), loraKeys(), dataKeys(), batchKeys(), optimKeys(), outputKeys())
}

type row = key[Job]

func modelKeys() []row {
	const s = "Model"
	return []row{
		{Key: Key{Name: "name", Aliases: []string{"run_name"}, Section: s,
			Doc: "name of the run, for people"}, at: func(j *Job) any { return &j.Name }, check: oneLine},
		{Key: Key{Name: "base_model", Aliases: []string{"model_name_or_path", "model", "base_model_name_or_path"}, Section: s,
			Doc: "Hugging Face folder of a Llama-type model"}, at: func(j *Job) any { return &j.BaseModel }, check: oneLine},
		{Key: Key{Name: "adapter", Aliases: []string{"finetuning_type"}, Section: s, Values: []string{LoRA, QLoRA, Full},
			Doc: "lora trains an adapter on a frozen base, full trains all weights; qlora is lora with load_in_4bit"}, at: func(j *Job) any { return &j.Adapter }},
		{Key: Key{Name: "load_in_4bit", Section: s, Only: LoRA, Quiet: true,
			Doc: "keep the frozen base in 4 bits (QLoRA): quantised while it is loaded, unless it is already"}, at: func(j *Job) any { return &j.LoadIn4Bit }},
		{Key: Key{Name: "bnb_4bit_quant_type", Section: s, Only: QLoRA, Values: []string{"nf4"},
			Doc: "format of the 4 bits, as in bitsandbytes"}, at: func(j *Job) any { return &j.QuantType }},
		{Key: Key{Name: "bnb_4bit_use_double_quant", Aliases: []string{"double_quantization"}, Section: s, Only: QLoRA,
			Doc: "keep the scales of the 4 bits in 8 bits: 4.13 bits a weight instead of 4.5"}, at: func(j *Job) any { return &j.DoubleQuant }},
		{Key: Key{Name: "bnb_4bit_compute_dtype", Section: s, Only: QLoRA, Values: []string{"f32", "bf16"},
			Doc: "type that products with the 4-bit weights are computed in; the same as dtype"}, at: func(j *Job) any { return &j.QuantCompute },
			words: map[string]string{"float32": "f32", "fp32": "f32", "bfloat16": "bf16"}},
		{Key: Key{Name: "init", Section: s, Values: []string{"", InitRandom}, Only: Full,
			Doc: "random draws the weights from the seed (adapter: full, a base folder without weights)"}, at: func(j *Job) any { return &j.Init }},
		{Key: Key{Name: "dtype", Aliases: []string{"torch_dtype"}, Section: s, Values: []string{"f32", "bf16"},
			Doc: "type that frozen weights are kept in and multiplied in; sums and all else are f32 (bf16: half the memory, twice the speed with AVX512_BF16)"}, at: func(j *Job) any { return &j.DType },
			words: map[string]string{"float32": "f32", "fp32": "f32", "float": "f32", "auto": "f32", "bfloat16": "bf16"}},
		{Key: Key{Name: "device", Section: s, Quiet: true, Values: []string{"", DeviceCPU, DeviceCUDA},
			Doc: "what a node computes on: empty (auto) is its GPU if it has one that can train this (docs/gpu.md), else its processor; with cuda, nodes without one take no part"}, at: func(j *Job) any { return &j.Device },
			words: map[string]string{"auto": "", "gpu": "cuda"}},
	}
}

func loraKeys() []row {
	const s = "LoRA"
	return append(newLoRAKeys(),
		row{Key: Key{Name: "lora_model_dir", Aliases: []string{"resume_adapter_file", "adapter_name_or_path"}, Section: s, Only: LoRA,
			Doc: "PEFT folder with the adapter to start from, which says what the keys above say"}, at: func(j *Job) any { return &j.LoraModelDir }, check: oneLine},
	)
}

// newLoRAKeys say what a new adapter is; the one in lora_model_dir says it of itself, but for the dropout.
func newLoRAKeys() []row {
	const s = "LoRA"
	return []row{
		{Key: Key{Name: "lora_r", Aliases: []string{"lora_rank", "r"}, Section: s, Only: NewLoRA,
			Doc: "rank of the update"}, at: func(j *Job) any { return &j.LoraR }, check: intIn(1, 4096)},
		{Key: Key{Name: "lora_alpha", Section: s, Only: NewLoRA,
			Doc: "the update is scaled by alpha / r"}, at: func(j *Job) any { return &j.LoraAlpha }, check: positive},
		{Key: Key{Name: "lora_dropout", Section: s, Only: LoRA,
			Doc: "dropout on the input of the update, from 0 to below 1"}, at: func(j *Job) any { return &j.LoraDropout }, check: below1},
		{Key: Key{Name: "lora_target_modules", Aliases: []string{"lora_target", "target_modules"}, Section: s, Only: NewLoRA,
			Doc: "list of module names, one regular expression, or all-linear"}, at: func(j *Job) any { return &j.LoraTargetModules }},
		{Key: Key{Name: "lora_exclude_modules", Aliases: []string{"exclude_modules"}, Section: s, Only: NewLoRA, Quiet: true,
			Doc: "modules that get no adapter all the same: a list of names, or one regular expression"}, at: func(j *Job) any { return &j.LoraExclude }},
		{Key: Key{Name: "lora_rank_pattern", Aliases: []string{"rank_pattern"}, Section: s, Only: NewLoRA, Quiet: true,
			Doc: "other ranks by module: {q_proj: 32}; keys are regular expressions for the end of the name, the first in alphabetical order counts"},
			at: func(j *Job) any { return &j.LoraRankPattern }, check: ranks},
		{Key: Key{Name: "lora_alpha_pattern", Aliases: []string{"alpha_pattern"}, Section: s, Only: NewLoRA, Quiet: true,
			Doc: "other alphas by module, likewise"}, at: func(j *Job) any { return &j.LoraAlphaPattern }, check: alphas},
		{Key: Key{Name: "lora_init", Aliases: []string{"peft_init_lora_weights", "init_lora_weights"}, Section: s, Only: NewLoRA,
			Doc: "where A and B start: default is PEFT's uniform A, gaussian an A of standard deviation 1 / r, B zero; pissa the principal components of the weight, pissa_niter_4 the same by 4 rounds of a fast way"},
			at: func(j *Job) any { return &j.LoraInit }, check: loraInit,
			words: map[string]string{"true": LoRAInitDefault, "kaiming": LoRAInitDefault}},
		{Key: Key{Name: "peft_use_rslora", Aliases: []string{"use_rslora"}, Section: s, Only: NewLoRA,
			Doc: "scale by alpha / sqrt(r) instead (rank-stabilised LoRA)"}, at: func(j *Job) any { return &j.PeftUseRSLoRA }},
		{Key: Key{Name: "peft_use_dora", Aliases: []string{"use_dora"}, Section: s, Only: NewLoRA, Quiet: true,
			Doc: "learn the length of each row of a weight apart from its direction (DoRA)"}, at: func(j *Job) any { return &j.PeftUseDoRA }},
		{Key: Key{Name: "peft_bias", Aliases: []string{"bias"}, Section: s, Only: NewLoRA, Quiet: true, Values: []string{"", "lora_only"},
			Doc: "lora_only trains the biases of the adapted layers, too"}, at: func(j *Job) any { return &j.PeftBias },
			words: map[string]string{"none": ""}},
		{Key: Key{Name: "lora_modules_to_save", Aliases: []string{"modules_to_save"}, Section: s, Only: NewLoRA, Quiet: true,
			Doc: "modules that are trained whole and saved with the adapter, e.g. [embed_tokens, lm_head]"}, at: func(j *Job) any { return &j.LoraModulesToSave }},
	}
}

func dataKeys() []row {
	const s = "Data"
	return []row{
		{Key: Key{Name: "datasets", Aliases: []string{"dataset", "data"}, Section: s,
			Doc: "files to train on (JSONL, CSV, TSV, Parquet); the format is found from the keys of the records"}, at: func(j *Job) any { return &j.Datasets }},
		{Key: Key{Name: "test_datasets", Aliases: []string{"eval_dataset"}, Section: s,
			Doc: "files to evaluate on, instead of val_set_size"}, at: func(j *Job) any { return &j.TestDatasets }},
		{Key: Key{Name: "val_set_size", Aliases: []string{"val_size"}, Section: s,
			Doc: "examples kept back for evaluation: a fraction below 1, or a number"}, at: func(j *Job) any { return &j.ValSetSize }, check: countOrFraction},
		{Key: Key{Name: "sequence_len", Aliases: []string{"cutoff_len", "max_seq_length", "max_length", "max_seq_len"}, Section: s,
			Doc: "longest example, in tokens"}, at: func(j *Job) any { return &j.SequenceLen }, check: intIn(2, 1<<20)},
		{Key: Key{Name: "excess_length_strategy", Section: s, Values: []string{"truncate", "drop", "raise"},
			Doc: "what to do with a longer one: truncate, drop or raise (stop with an error)"}, at: func(j *Job) any { return &j.ExcessLengthStrategy }},
		{Key: Key{Name: "train_on_inputs", Aliases: []string{"train_on_prompt"}, Section: s,
			Doc: "learn the prompt too, not only the answer"}, at: func(j *Job) any { return &j.TrainOnInputs }},
		{Key: Key{Name: "sample_packing", Aliases: []string{"packing", "packed", "neat_packing"}, Section: s, Quiet: true,
			Doc: "batch sizes count rows of sequence_len tokens, each filled with as many whole examples as fit (best fit decreasing); these see nothing of each other"}, at: func(j *Job) any { return &j.SamplePacking }},
		{Key: Key{Name: "curriculum", Section: s, Values: []string{"none", "sorted", "paced"},
			Doc: "order of the examples: none (shuffled), sorted (easy first) or paced (the pool grows from easy to all)"}, at: func(j *Job) any { return &j.Curriculum }},
		{Key: Key{Name: "difficulty", Section: s,
			Doc: "heuristic (words/100 + distinct words/words), or column:NAME"}, at: func(j *Job) any { return &j.Difficulty }, check: difficulty},
		{Key: Key{Name: "task_prefix", Section: s, Quiet: true,
			Doc: "write [TASK] before the prompt, where a data set or a record's column task names one"}, at: func(j *Job) any { return &j.TaskPrefix }},
		{Key: Key{Name: "mix_temperature", Section: s, Quiet: true,
			Doc: "share of each data set in an epoch: size^(1/temperature); 1 = as they are, large = equal shares; 0 = by their weights"}, at: func(j *Job) any { return &j.MixTemperature }, check: notNegative},
	}
}

func batchKeys() []row {
	const s = "Steps"
	return []row{
		{Key: Key{Name: "micro_batch_size", Aliases: []string{"per_device_train_batch_size", "batch_size"}, Section: s,
			Doc: "examples in one micro-batch, the piece of work of one node"}, at: func(j *Job) any { return &j.MicroBatchSize }, check: intIn(1, 1<<20)},
		{Key: Key{Name: "global_batch_size", Section: s,
			Doc: "examples in one step, whatever the number of nodes; micro_batch_size * gradient_accumulation_steps if not given"}, at: func(j *Job) any { return &j.GlobalBatchSize }, check: intIn(1, 1<<24)},
		{Key: Key{Name: "gradient_accumulation_steps", Aliases: []string{"grad_accumulation_steps"}, Section: s,
			Doc: "micro-batches in one step: global_batch_size / micro_batch_size, rounded up"}, at: func(j *Job) any { return &j.GradientAccumulation }, check: intIn(1, 1<<20)},
		{Key: Key{Name: "num_epochs", Aliases: []string{"num_train_epochs", "epochs"}, Section: s,
			Doc: "passes over the data; fractions are fine"}, at: func(j *Job) any { return &j.NumEpochs }, check: positive},
		{Key: Key{Name: "max_steps", Aliases: []string{"iters"}, Section: s,
			Doc: "steps; when above 0 it wins over num_epochs"}, at: func(j *Job) any { return &j.MaxSteps }, check: intIn(0, 1<<40),
			words: map[string]string{"-1": "0"}},
	}
}

func optimKeys() []row {
	const s = "Optimiser"
	return []row{
		{Key: Key{Name: "optimizer", Aliases: []string{"optim"}, Section: s, Values: []string{AdamW, AdamW8},
			Doc: "adamw as in torch, or adamw_8bit as in bitsandbytes: its state in a quarter of the memory"}, at: func(j *Job) any { return &j.Optimizer },
			words: map[string]string{"adamw_torch": AdamW, "adamw_torch_fused": AdamW, "adamw_hf": AdamW, "paged_adamw_32bit": AdamW, "paged_adamw": AdamW,
				"adamw_bnb_8bit": AdamW8, "paged_adamw_8bit": AdamW8}},
		{Key: Key{Name: "neftune_noise_alpha", Section: s, Quiet: true,
			Doc: "NEFTune: noise on the embeddings in training, e.g. 5; 0 = none"}, at: func(j *Job) any { return &j.NEFTuneAlpha }, check: notNegative},
		{Key: Key{Name: "loraplus_lr_ratio", Section: s, Only: LoRA, Quiet: true,
			Doc: "LoRA+: learning rate of lora_B as a multiple of lora_A's, e.g. 16; 0 = off"}, at: func(j *Job) any { return &j.LoraPlusRatio }, check: notNegative},
		{Key: Key{Name: "learning_rate", Aliases: []string{"lr"}, Section: s,
			Doc: "peak learning rate"}, at: func(j *Job) any { return &j.LearningRate }, check: positive},
		{Key: Key{Name: "lr_scheduler", Aliases: []string{"lr_scheduler_type"}, Section: s, Values: []string{"cosine", "linear", "constant"},
			Doc: "after the warm-up: cosine or linear to zero, or constant"}, at: func(j *Job) any { return &j.LRScheduler },
			words: map[string]string{"constant_with_warmup": "constant"}},
		{Key: Key{Name: "warmup_steps", Section: s,
			Doc: "steps of linear warm-up"}, at: func(j *Job) any { return &j.WarmupSteps }, check: intIn(0, 1<<40)},
		{Key: Key{Name: "warmup_ratio", Section: s,
			Doc: "the same as a fraction of all steps"}, at: func(j *Job) any { return &j.WarmupRatio }, check: below1},
		{Key: Key{Name: "weight_decay", Section: s,
			Doc: "decoupled weight decay"}, at: func(j *Job) any { return &j.WeightDecay }, check: notNegative},
		{Key: Key{Name: "adam_beta1", Aliases: []string{"beta1"}, Section: s, Doc: "decay of the first moment"}, at: func(j *Job) any { return &j.AdamBeta1 }, check: below1},
		{Key: Key{Name: "adam_beta2", Aliases: []string{"beta2"}, Section: s, Doc: "decay of the second moment"}, at: func(j *Job) any { return &j.AdamBeta2 }, check: below1},
		{Key: Key{Name: "adam_epsilon", Aliases: []string{"adam_eps"}, Section: s, Doc: "added to the root of the second moment"}, at: func(j *Job) any { return &j.AdamEpsilon }, check: positive},
		{Key: Key{Name: "max_grad_norm", Aliases: []string{"clip_grad_norm"}, Section: s,
			Doc: "the gradient is scaled down to this L2 norm; 0 = never"}, at: func(j *Job) any { return &j.MaxGradNorm }, check: notNegative},
		{Key: Key{Name: "skip_nan_grad", Section: s, Quiet: true,
			Doc: "how many steps in a row may be skipped because a gradient is NaN or infinite, before the run fails; true = 5, 0 = the first one fails it"}, at: func(j *Job) any { return &j.SkipNaN }, check: intIn(0, 1<<20),
			words: map[string]string{"true": "5", "false": "0"}},
		{Key: Key{Name: "reduce_wire", Section: s, Quiet: true, Values: []string{"", WireInt16},
			Doc: "how nodes send gradients: exact (to 2^-40), or int16, half the bytes: rounded to 2^-12 of what AdamW divides by"}, at: func(j *Job) any { return &j.ReduceWire },
			words: map[string]string{"exact": ""}},
		{Key: Key{Name: "seed", Aliases: []string{"random_seed"}, Section: s,
			Doc: "of every random draw"}, at: func(j *Job) any { return &j.Seed }},
	}
}

func outputKeys() []row {
	const s = "Output"
	return []row{
		{Key: Key{Name: "output_dir", Aliases: []string{"adapter_path"}, Section: s,
			Doc: "folder for the adapter, checkpoints and logs"}, at: func(j *Job) any { return &j.OutputDir }, check: oneLine},
		{Key: Key{Name: "logging_steps", Aliases: []string{"log_every_n_steps", "steps_per_report"}, Section: s,
			Doc: "steps between log lines"}, at: func(j *Job) any { return &j.LoggingSteps }, check: intIn(1, 1<<40)},
		{Key: Key{Name: "eval_steps", Aliases: []string{"steps_per_eval"}, Section: s,
			Doc: "steps between evaluations; 0 = only at the end"}, at: func(j *Job) any { return &j.EvalSteps }, check: intIn(0, 1<<40)},
		{Key: Key{Name: "save_steps", Aliases: []string{"save_every"}, Section: s,
			Doc: "steps between checkpoints; 0 = only at the end"}, at: func(j *Job) any { return &j.SaveSteps }, check: intIn(0, 1<<40)},
		{Key: Key{Name: "save_total_limit", Section: s,
			Doc: "checkpoints kept; 0 = all"}, at: func(j *Job) any { return &j.SaveTotalLimit }, check: intIn(0, 1<<20)},
		{Key: Key{Name: "early_stopping_patience", Section: s, Quiet: true,
			Doc: "evaluations in a row without an improvement of eval_loss that end the run; 0 = none do"}, at: func(j *Job) any { return &j.EarlyStopping }, check: intIn(0, 1<<20)},
		{Key: Key{Name: "early_stopping_threshold", Section: s, Quiet: true,
			Doc: "how much lower eval_loss must be than the lowest before to be an improvement"}, at: func(j *Job) any { return &j.EarlyStoppingThreshold }, check: notNegative},
		{Key: Key{Name: "load_best_model_at_end", Section: s, Quiet: true,
			Doc: "the output is that of the evaluation with the lowest eval_loss, not that of the last step; its checkpoint, if there is one, is kept"}, at: func(j *Job) any { return &j.LoadBest }},
		{Key: Key{Name: "metric_for_best_model", Section: s, Quiet: true, Values: []string{"", "eval_loss"},
			Doc: "what the best is judged by"}, at: func(j *Job) any { return &j.BestMetric }, words: map[string]string{"loss": "eval_loss"}},
	}
}

func datasetKeys() []key[Dataset] {
	text := func(name, doc string, at func(*Dataset) any, aliases ...string) key[Dataset] {
		return key[Dataset]{Key: Key{Name: name, Aliases: aliases, Doc: doc}, at: at, check: oneLine}
	}
	kind := text("type", "auto, text, completion, alpaca or chat; or a domain's wording: legal, medical, code, finance", func(d *Dataset) any { return &d.Type })
	kind.Values = []string{"auto", "text", "completion", "alpaca", "chat", "legal", "medical", "code", "finance"}
	kind.words = map[string]string{"chat_template": "chat", "sharegpt": "chat", "openai": "chat", "messages": "chat",
		"pretrain": "text", "prompt_completion": "completion"}
	return []key[Dataset]{
		text("path", "the file: JSONL, or .csv, .tsv or .parquet", func(d *Dataset) any { return &d.Path }, "data_files", "file_name"),
		kind,
		text("task", "task of all its records, instead of their column task", func(d *Dataset) any { return &d.Task }),
		{Key: Key{Name: "weight", Doc: "share in the mixture, relative to the other data sets; 0 = 1"}, at: func(d *Dataset) any { return &d.Weight }, check: notNegative},
		{Key: Key{Name: "prompt_template", Doc: "a wording of your own: {column}, [[ left out if a {column} in it is empty ]], {{ for a brace"},
			at: func(d *Dataset) any { return &d.PromptTemplate }},
		{Key: Key{Name: "completion_template", Doc: "what is learnt after it"}, at: func(d *Dataset) any { return &d.CompletionTemplate }},
		text("field", "column of plain text", func(d *Dataset) any { return &d.FieldText }, "field_text", "text_column"),
		text("field_prompt", "column of the prompt", func(d *Dataset) any { return &d.FieldPrompt }),
		text("field_completion", "column of the completion", func(d *Dataset) any { return &d.FieldCompletion }),
		text("field_instruction", "column of the instruction", func(d *Dataset) any { return &d.FieldInstruction }),
		text("field_input", "column of the input", func(d *Dataset) any { return &d.FieldInput }),
		text("field_output", "column of the output", func(d *Dataset) any { return &d.FieldOutput }),
		text("field_system", "column of the system message", func(d *Dataset) any { return &d.FieldSystem }),
		text("field_messages", "column of the messages", func(d *Dataset) any { return &d.FieldMessages }),
		text("field_role", "who speaks, in a message", func(d *Dataset) any { return &d.FieldRole }, "message_field_role"),
		text("field_content", "what is said, in a message", func(d *Dataset) any { return &d.FieldContent }, "message_field_content"),
		text("field_difficulty", "numeric column, instead of the job's difficulty", func(d *Dataset) any { return &d.FieldDifficulty }),
	}
}

// aliases are the other names whose values need translating; plain renamings are in the table above.
func aliases() []alias {
	precision := "not supported: lorad computes in f32 or bf16; give dtype: bf16, or remove the key (weights stored in f16 are read)"
	quantised := "not supported: lorad quantises to 4 bits only; give load_in_4bit, or remove the key"
	boolean := map[string]string{"true": "false", "false": "true"}
	off := map[string]string{"false": "", "auto": "f32"}
	return []alias{
		{"mask_prompt", "train_on_inputs", boolean, "give true or false"},
		{"lora_target_linear", "lora_target_modules", map[string]string{"true": AllLinear, "false": ""}, "give true or false"},
		{"bf16", "dtype", map[string]string{"false": "", "auto": "f32", "true": "bf16", "full": "bf16"}, "give true, false or auto"},
		{"fp16", "dtype", off, precision},
		{"load_in_8bit", "load_in_4bit", map[string]string{"false": ""}, quantised},
		{"quantization_bit", "load_in_4bit", map[string]string{"null": "", "none": "", "4": "true"}, quantised},
	}
}

// names lists every name a mapping of this table may use.
func names[T any](keys []key[T]) []string {
	var out []string
	for _, k := range keys {
		out = append(append(out, k.Name), k.Aliases...)
	}
	return out
}

// find returns the row that has the name or the alias.
func find[T any](keys []key[T], name string) (key[T], bool) {
	for _, k := range keys {
		if k.Name == name || slices.Contains(k.Aliases, name) {
			return k, true
		}
	}
	return key[T]{}, false
}

func quoteList(words []string) string {
	shown := make([]string, 0, len(words))
	for _, w := range words {
		if w != "" {
			shown = append(shown, w)
		}
	}
	return strings.Join(shown, ", ")
}
