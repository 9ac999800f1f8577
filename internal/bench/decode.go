package bench

import (
	"runtime/debug"
	"time"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/estimate"
	"lorad/engine/llama"
)

// Decoding is how fast a model, without an adapter, continues a prompt.
type Decoding struct {
	PrefillTokensPerS float64 `json:"prefill_tokens_per_s"`
	TokensPerS        float64 `json:"tokens_per_s"`    // one sequence, token by token
	BytesPerToken     float64 `json:"bytes_per_token"` // of weights, all of which each token reads; of the embedding one row
	Together          float64 `json:"tokens_per_s_of_16"`
}

// Decoder continues prompts.
type Decoder struct {
	model *llama.Model[float32]
	bytes float64
}

const (
	promptTokens = 128
	newTokens    = 32
)

// DecodeCases are models to decode with.
func DecodeCases() []Case { return []Case{{Llama, "f32", "none"}, {Llama, "bf16", "none"}} }

// NewDecoder builds the model of a case.
func NewDecoder(c Case, threads int) (*Decoder, error) {
	cfg, weights, err := c.load()
	if err != nil {
		return nil, err
	}
	ad := c.adapter()
	plan, err := estimate.Plan(estimate.Job{Model: estimate.Model{Config: cfg, Adapter: ad}, Batch: llama.Batch{Rows: 16 * promptTokens, Longest: promptTokens + newTokens}, Threads: threads})
	if err != nil {
		return nil, err
	}
	debug.SetMemoryLimit(plan.Limit())
	m, err := llama.New[float32](cfg, weights, ad, cpu.New(threads))
	if err != nil {
		return nil, err
	}
	table := 2 * float64(cfg.VocabSize*cfg.HiddenSize) // in 16 bits, as it is stored
	return &Decoder{m, float64(m.BaseBytes()) - table}, nil
}

// Decode generates, and takes the time of the prompt from that of everything.
func (d *Decoder) Decode() (Decoding, error) {
	first, err := d.generate(1, 1)
	if err != nil {
		return Decoding{}, err
	}
	all, err := d.generate(1, 1+newTokens)
	if err != nil {
		return Decoding{}, err
	}
	firstOf16, err := d.generate(16, 1)
	if err != nil {
		return Decoding{}, err
	}
	allOf16, err := d.generate(16, 1+newTokens)
	return Decoding{
		PrefillTokensPerS: 16 * promptTokens / firstOf16.Seconds(), TokensPerS: newTokens / (all - first).Seconds(),
		BytesPerToken: d.bytes, Together: 16 * newTokens / (allOf16 - firstOf16).Seconds(),
	}, err
}

func (d *Decoder) generate(prompts, tokens int) (time.Duration, error) {
	var in [][]int32
	for i := range prompts {
		p := make([]int32, promptTokens)
		for j := range p {
			p[j] = int32((i + j*7919) % d.model.Config().VocabSize)
		}
		in = append(in, p)
	}
	var err error
	t := best(0, func() { _, err = d.model.Generate(in, engine.Sampling{MaxNew: tokens}) })
	return t, err
}
