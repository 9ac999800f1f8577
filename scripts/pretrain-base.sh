#!/bin/sh
# Makes the embedded base model again from nothing: corpus, tokenizer, legal records, pretraining, bf16 folder.
# Needs Go and nothing else. Under an hour on 2 cores.
#
#   scripts/pretrain-base.sh [WORKDIR]     corpus, logs and checkpoints go to WORKDIR (default: dist/pretrain)
#
# DOCS=60000 makes a smaller corpus; a second run with the same WORKDIR resumes.
set -eu
cd "$(dirname "$0")/.."
work=${1:-dist/pretrain}
docs=${DOCS:-140000}
worldgen="go run ./internal/world/cmd/worldgen"

mkdir -p "$work/init"
$worldgen general --seed 1 --docs "$docs" >"$work/corpus.jsonl"
$worldgen general --seed 2 --docs 500 >"$work/heldout.jsonl"
$worldgen tokenizer --out embedded/base
$worldgen legal --split train >embedded/legal-train.jsonl
$worldgen legal --split heldout >embedded/legal-heldout.jsonl
for f in config generation_config special_tokens_map tokenizer tokenizer_config; do
	cp "embedded/base/$f.json" "$work/init/"
done

# One document is one sequence, <s> document </s>: nothing is packed, so nothing is attended to across documents.
cat >"$work/pretrain.yaml" <<YAML
name: pretrain-base
base_model: init
adapter: full
init: random
datasets:
  - path: corpus.jsonl
    type: text
test_datasets:
  - path: heldout.jsonl
    type: text
sequence_len: 256
global_batch_size: 24
micro_batch_size: 12
num_epochs: 1
learning_rate: 3e-3
lr_scheduler: cosine
warmup_steps: 100
weight_decay: 0.01
adam_beta2: 0.98
max_grad_norm: 1
seed: 1
logging_steps: 20
eval_steps: 500
save_steps: 500
save_total_limit: 1
output_dir: out
YAML

go run ./cmd/lorad train "$work/pretrain.yaml"

# Second stage, from those weights: passages and lists of new documents are read, and what follows from them is learnt.
$worldgen questions --seed 3 --docs 240000 >"$work/questions.jsonl"
$worldgen questions --seed 4 --docs 1500 >"$work/questions-heldout.jsonl"
cat >"$work/questions.yaml" <<YAML
name: pretrain-base-questions
base_model: out
adapter: full
datasets:
  - path: questions.jsonl
    type: completion
test_datasets:
  - path: questions-heldout.jsonl
    type: completion
sequence_len: 256
global_batch_size: 16
micro_batch_size: 16
num_epochs: 1
learning_rate: 2e-3
lr_scheduler: cosine
warmup_steps: 100
weight_decay: 0.01
adam_beta2: 0.98
max_grad_norm: 1
seed: 2
logging_steps: 20
eval_steps: 500
save_steps: 500
save_total_limit: 1
output_dir: questions
YAML
go run ./cmd/lorad train "$work/questions.yaml"
cp "$work/questions/model.safetensors" embedded/base/model.safetensors
ls -l embedded/base/model.safetensors
