package job

import "slices"

// ignored are keys of other tools' files that need no answer here, or that have another one than their names suggest.
func ignored() []none { return slices.Concat(ignoredTraining(), ignoredSchedule(), ignoredRunning()) }

func ignoredTraining() []none {
	padding := "no effect: lorad pads nothing"
	off := []string{"false", "null"}
	return []none{
		{"pad_to_sequence_len", nil, padding},
		{"padding_free", nil, padding},
		{"pad_to_multiple_of", nil, padding},
		{"packing_strategy", []string{"bfd", "null"}, "not supported: only whole examples are packed, by best fit decreasing; remove the key"},
		{"eval_sample_packing", nil, "no effect: the validation loss is the mean over all tokens"},
		{"eval_packing", nil, "no effect: the validation loss is the mean over all tokens"},
		{"gradient_checkpointing", nil, "no effect: results are the same with and without"},
		{"grad_checkpoint", nil, "no effect: results are the same with and without"},
		{"enable_activation_checkpointing", nil, "no effect: results are the same with and without"},
		{"flash_attention", nil, "no effect: results are the same with and without"},
		{"tf32", nil, "no effect: lorad computes in f32"},
		{"gradient_checkpointing_kwargs", nil, "no effect: results are the same with and without"},
		{"xformers_attention", nil, "no effect: results are the same with and without"},
		{"sdp_attention", nil, "no effect: results are the same with and without"},
		{"attn_implementation", nil, "no effect: results are the same with and without"},
		{"model_type", nil, "no effect: the model's config.json says what it is"},
		{"tokenizer_type", nil, "no effect: the model's tokenizer.json says what it is"},
		{"is_llama_derived_model", nil, "no effect: the model's config.json says what it is"},
		{"trust_remote_code", off, "not supported: no code of a model folder is ever run; remove the key"},
		{"chat_template", []string{"tokenizer_default", "null"}, "not supported: chat data are worded by the base model's own template; change that in its folder, and remove the key"},
		{"special_tokens", []string{"null"}, "not supported: the special tokens are the base model's; change them in its folder, and remove the key"},
		{"fan_in_fan_out", off, "not supported: no model that lorad knows stores its weights so; remove the key"},
		{"lora_fan_in_fan_out", off, "not supported: no model that lorad knows stores its weights so; remove the key"},
		{"task_type", []string{"CAUSAL_LM", "null"}, "not supported: lorad trains causal language models; remove the key"},
		{"rl", []string{"null"}, "not supported: lorad trains on examples, not on preferences; remove the key"},
		{"group_by_length", off, "not supported: nothing is padded, so nothing is gained; see curriculum for the order, and remove the key"},
	}
}

// ignoredSchedule says when something happens in words that lorad counts in steps.
func ignoredSchedule() []none {
	evals := "not supported: give eval_steps, the steps between two evaluations"
	saves := "not supported: give save_steps, the steps between two checkpoints"
	return []none{
		{"eval_strategy", []string{"steps", "null"}, evals},
		{"evaluation_strategy", []string{"steps", "null"}, evals},
		{"evals_per_epoch", []string{"null"}, evals},
		{"save_strategy", []string{"steps", "null"}, saves},
		{"saves_per_epoch", []string{"null"}, saves},
		{"logging_strategy", []string{"steps", "null"}, "not supported: give logging_steps, the steps between two log lines"},
		{"per_device_eval_batch_size", nil, "no effect: the validation loss is the mean over all tokens"},
		{"eval_batch_size", nil, "no effect: the validation loss is the mean over all tokens"},
	}
}

func ignoredRunning() []none {
	off := []string{"false", "null"}
	tracked := "not supported: metrics are in output_dir/trainer_log.jsonl; remove the key"
	sharded := "not supported: the nodes share the micro-batches of a step, and each holds the whole model; remove the key"
	data := "no effect: data are read once, before the first step"
	return []none{
		{"strict", nil, "no effect: job files are always read strictly"},
		{"auto_resume_from_checkpoints", []string{"true", "null"}, "not supported: a run always goes on from its last checkpoint; give another output_dir for a new one"},
		{"resume_from_checkpoint", off, "not supported: a run always goes on from its last checkpoint; remove the key"},
		{"greater_is_better", off, "not supported: the best model is judged by eval_loss, of which less is better; remove the key"},
		{"hub_model_id", []string{"null", ""}, "not supported: nothing is uploaded; remove the key"},
		{"push_to_hub", off, "not supported: nothing is uploaded; remove the key"},
		{"report_to", []string{"none", "null", ""}, "not supported: metrics are in output_dir/trainer_log.jsonl; remove the key"},
		{"wandb_project", []string{"null", ""}, tracked},
		{"wandb_entity", []string{"null", ""}, tracked},
		{"wandb_name", []string{"null", ""}, tracked},
		{"wandb_watch", []string{"null", ""}, tracked},
		{"wandb_log_model", []string{"null", ""}, tracked},
		{"deepspeed", []string{"null", ""}, sharded},
		{"fsdp", []string{"null", ""}, sharded},
		{"fsdp_config", []string{"null"}, sharded},
		{"local_rank", nil, "no effect: nodes join a cluster by lorad join"},
		{"ddp_timeout", nil, "no effect: nodes join a cluster by lorad join"},
		{"dataset_prepared_path", nil, data},
		{"dataset_processes", nil, data},
		{"dataloader_num_workers", nil, data},
		{"preprocessing_num_workers", nil, data},
		{"overwrite_cache", nil, data},
		{"debug", nil, "no effect: lorad -v logs more"},
	}
}

// datasetIgnored are those of a data set.
func datasetIgnored() []none {
	return []none{
		{"split", []string{"train", "null"}, "not supported: a file has no splits; see val_set_size and test_datasets"},
		{"ds_type", []string{"json", "jsonl", "csv", "parquet", "null"}, "not supported: the file's name says what it is: .csv, .tsv, .parquet, anything else is JSONL"},
		{"chat_template", []string{"tokenizer_default", "null"}, "not supported: chat data are worded by the base model's own template; change that in its folder, and remove the key"},
		{"roles_to_train", []string{"assistant", "gpt", "assistant,gpt", "gpt,assistant", "null"}, "not supported: what the assistant says is learnt; see train_on_inputs, and remove the key"},
		{"train_on_eos", []string{"turn", "null"}, "not supported: the end of each turn that is learnt is learnt; remove the key"},
		{"message_property_mappings", []string{"null"}, "not supported: give field_role and field_content"},
	}
}
