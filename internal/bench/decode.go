package bench

import (
	"runtime/debug"
	"time"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/cuda"
	"lorad/engine/cuda/device"
	"lorad/engine/estimate"
	"lorad/engine/llama"
	"lorad/model"
)

// Decoding is how fast a model continues a prompt; on a processor without an adapter.
type Decoding struct {
	PrefillTokensPerS float64 `json:"prefill_tokens_per_s"`
	TokensPerS        float64 `json:"tokens_per_s"`    // one sequence, token by token
	BytesPerToken     float64 `json:"bytes_per_token"` // of weights, all of which each token reads; of the embedding one row
	Together          float64 `json:"tokens_per_s_of_16"`
}

// Decoder continues prompts.
type Decoder struct {
	model       engine.Trainer
	vocab       int
	bytes       float64
	prompt, new int // tokens
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
	return &Decoder{m, cfg.VocabSize, float64(m.BaseBytes()) - table, promptTokens, newTokens}, nil
}

// NewGPUDecoder builds a model of a type, with an adapter, on a device that Close closes. Tiny is one to see that everything runs.
func NewGPUDecoder(dtype string, cfg model.Config, dev device.Device, tiny bool) (*Decoder, *cuda.Trainer, error) {
	t, err := cuda.NewFrozen(cfg, Random{cfg}, Case{DType: dtype, Adapter: "lora"}.adapter(), dev)
	if err != nil {
		return nil, nil, err
	}
	d := &Decoder{t, cfg.VocabSize, float64(t.Plan().Weights), promptTokens, newTokens}
	if !cfg.TieEmbeddings {
		d.bytes -= 2 * float64(cfg.VocabSize*cfg.HiddenSize)
	}
	if tiny {
		d.prompt, d.new = 4, 1
	}
	return d, t, nil
}

// Decode generates, and takes the time of the prompt from that of everything.
func (d *Decoder) Decode() (Decoding, error) {
	first, err := d.generate(1, 1)
	if err != nil {
		return Decoding{}, err
	}
	all, err := d.generate(1, 1+d.new)
	if err != nil {
		return Decoding{}, err
	}
	firstOf16, err := d.generate(16, 1)
	if err != nil {
		return Decoding{}, err
	}
	allOf16, err := d.generate(16, 1+d.new)
	return Decoding{
		PrefillTokensPerS: float64(16*d.prompt) / firstOf16.Seconds(), TokensPerS: float64(d.new) / (all - first).Seconds(),
		BytesPerToken: d.bytes, Together: float64(16*d.new) / (allOf16 - firstOf16).Seconds(),
	}, err
}

func (d *Decoder) generate(prompts, tokens int) (time.Duration, error) {
	var in [][]int32
	for i := range prompts {
		p := make([]int32, d.prompt)
		for j := range p {
			p[j] = int32((i + j*7919) % d.vocab)
		}
		in = append(in, p)
	}
	var err error
	t := best(0, func() { _, err = d.model.Generate(in, engine.Sampling{MaxNew: tokens}) })
	return t, err
}
