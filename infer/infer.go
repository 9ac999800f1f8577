// Package infer uses a model: a base folder with or without a PEFT adapter, a prompt in, text out.
//
// It runs on the training engine, so what is measured after training is what was trained.
package infer

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"lorad/data"
	"lorad/engine"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/export"
	"lorad/model"
	"lorad/model/peft"
	"lorad/model/tokenizer"
)

// Model is ready to generate. It is not safe for concurrent use.
type Model struct {
	engine    engine.Trainer
	on        Place
	Tokenizer *tokenizer.Tokenizer
	config    model.Config
	chat      string // template
}

// Options say how a model computes.
type Options struct {
	Threads int    // 0: all cores
	DType   string // of products with frozen weights: Auto (also ""), F32, BF16, or Trained
	Device  string // Auto (also ""), CPU or CUDA

	// GPUs lists those that a model may be put on; the error says why there are none. nil: nobody asks.
	GPUs func() ([]GPU, error)
}

// Values of Options.DType. An adapter that was trained on a base in 4 bits always has one.
const (
	Auto    = "auto" // bf16 on a GPU, f32 on the processor
	F32     = "f32"
	BF16    = "bf16"
	Trained = "trained" // as the adapter was trained; f32 if there is none, or it does not say
)

// DTypeOf is the type that a value of Options.DType means for an adapter folder, which may be nil.
func DTypeOf(dtype string, adapter fs.FS) (kernel.Precision, error) {
	if dtype == Trained && adapter != nil {
		p, err := export.ReadProvenance(adapter)
		if err != nil {
			return kernel.F32, fmt.Errorf("adapter: %w", err)
		}
		dtype = p.DType
	}
	switch dtype {
	case "", Auto, F32, Trained:
		return kernel.F32, nil
	case BF16:
		return kernel.BF16, nil
	}
	return kernel.F32, fmt.Errorf("dtype: %q is not supported; give %s, %s or %s", dtype, F32, BF16, Trained)
}

// Open reads a base folder and, unless it is nil, an adapter folder.
func Open(base, adapter fs.FS, how Options) (*Model, error) {
	folder, err := model.Open(base)
	if err != nil {
		return nil, fmt.Errorf("base model: %w", err)
	}
	defer folder.Close()
	if !folder.HasWeights() {
		return nil, fmt.Errorf("base model: the folder has no model.safetensors")
	}
	m := &Model{config: folder.Config(), chat: folder.ChatTemplate()}
	if m.Tokenizer, err = folder.Tokenizer(); err != nil {
		return nil, fmt.Errorf("base model: %w", err)
	}
	var ad llama.Adapter
	if adapter != nil {
		if ad, err = readAdapter(adapter); err != nil {
			return nil, err
		}
	}
	if ad.Precision, err = DTypeOf(how.DType, adapter); err != nil {
		return nil, err
	}
	if err := m.place(folder, ad, how); err != nil {
		return nil, err
	}
	return m, nil
}

func readAdapter(dir fs.FS) (llama.Adapter, error) {
	cfg, tensors, err := peft.Read(dir)
	if err != nil {
		return llama.Adapter{}, fmt.Errorf("adapter: %w", err)
	}
	init := make(map[string][]float32, len(tensors))
	for name, t := range tensors {
		init[name] = t.Data
	}
	ad := llama.Adapter{LoRA: &cfg, Init: init}
	p, err := export.ReadProvenance(dir)
	if err != nil {
		return ad, fmt.Errorf("adapter: %w", err)
	}
	if p.FourBit != "" { // it has learnt to correct the base in 4 bits
		ad.FourBit = &llama.FourBit{Nested: p.FourBit == export.NF4Nested}
	}
	return ad, nil
}

// Complete continues a prompt as it stands (no chat template) and returns what was added. The model's end-of-text
// tokens stop it.
func (m *Model) Complete(prompt string, how engine.Sampling) (string, error) {
	out, err := m.CompleteAll([]string{prompt}, how)
	if err != nil {
		return "", err
	}
	return out[0], nil
}

// CompleteAll is Complete for many prompts at once, which is several times as fast as one after the other.
func (m *Model) CompleteAll(prompts []string, how engine.Sampling) ([]string, error) {
	how = m.stopped(how)
	ids, out := make([][]int32, len(prompts)), make([]string, len(prompts))
	for i, p := range prompts {
		ids[i] = m.Tokenizer.Encode(p, true)
	}
	more, err := m.engine.Generate(ids, how)
	if err != nil {
		return nil, err
	}
	for i, o := range more {
		out[i] = m.Tokenizer.Decode(o, true)
	}
	return out, nil
}

// stopped is how, with the model's end-of-text tokens stopping it as well.
func (m *Model) stopped(how engine.Sampling) engine.Sampling {
	how.Stop = slices.Clone(how.Stop)
	for _, id := range m.config.EOS {
		how.Stop = append(how.Stop, int32(id))
	}
	return how
}

// lossBatch is how many examples Perplexity takes at a time.
const lossBatch = 16

// Perplexity is exp of the mean token loss over the answers of JSONL records (any format that package data reads).
func (m *Model) Perplexity(jsonl io.Reader) (float64, error) {
	src := data.Source{Name: "records", Open: func() (io.ReadCloser, error) { return io.NopCloser(jsonl), nil }}
	set, err := data.Build([]data.Source{src}, data.Options{}, m.Tokenizer, m.chat)
	if err != nil {
		return 0, err
	}
	var sum float64
	var tokens int
	for chunk := range slices.Chunk(set.Train, lossBatch) {
		b := engine.Batch{Starts: []int32{0}}
		for _, e := range chunk {
			b.Tokens, b.Labels = append(b.Tokens, e.Tokens...), append(b.Labels, e.Labels...)
			b.Starts = append(b.Starts, int32(len(b.Tokens)))
		}
		loss, err := m.engine.Loss(b)
		if err != nil {
			return 0, err
		}
		sum, tokens = sum+loss, tokens+b.Labelled()
	}
	return math.Exp(sum / float64(tokens)), nil
}
