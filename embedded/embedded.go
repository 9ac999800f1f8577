// Package embedded carries what `lorad demo` needs inside the binary: the base model that this project pretrained,
// the legal records that it is fine-tuned on, and the job that says how.
//
// The base is an ordinary Hugging Face folder and is read through the same model.Open as a folder on disk, so the
// demo exercises the code that users' models go through. scripts/pretrain-base.sh makes all of it again from nothing;
// a test holds the tokenizer and the records against their generators.
package embedded

import (
	"embed"
	"io/fs"
)

//go:embed base
var files embed.FS

//go:embed legal-train.jsonl
var legalTrain []byte

//go:embed legal-heldout.jsonl
var legalHeldout []byte

//go:embed job.yaml
var jobYAML string

// Base is the folder of the base model: config.json, the tokenizer's files and model.safetensors (bf16).
func Base() fs.FS {
	sub, err := fs.Sub(files, "base")
	if err != nil {
		panic(err) // only a malformed constant path can fail
	}
	return sub
}

// LegalTrain is 3,000 JSON lines {"id", "prompt", "completion", "task", "difficulty"}; see internal/world. The caller gets a copy.
func LegalTrain() []byte { return append([]byte(nil), legalTrain...) }

// LegalHeldout is 150 lines of the same shape about other cases, none of whose parties is in LegalTrain.
func LegalHeldout() []byte { return append([]byte(nil), legalHeldout...) }

// JobYAML is the demo's job; base_model and the data path are filled in by the caller.
func JobYAML() string { return jobYAML }
