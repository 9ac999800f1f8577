package llama_test

import (
	"math/rand/v2"
	"testing"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/llama"
	"lorad/model"
	"lorad/model/peft"
)

// embedded is about the model that ships in the binary.
func embedded() model.Config {
	return model.Config{
		VocabSize: 2048, HiddenSize: 128, IntermediateSize: 384, NumLayers: 5, NumHeads: 4, NumKVHeads: 2, HeadDim: 32,
		RMSNormEps: 1e-5, RopeTheta: 10000, MaxPosition: 512, TieEmbeddings: true,
	}
}

// examples is a micro-batch of sequences of different lengths; every label carries loss, as in pretraining.
func examples(vocab int, lengths ...int) engine.Batch {
	r := rand.New(rand.NewPCG(1, 2))
	b := engine.Batch{Starts: []int32{0}}
	for _, n := range lengths {
		for range n {
			b.Tokens = append(b.Tokens, int32(r.IntN(vocab)))
			b.Labels = append(b.Labels, int32(r.IntN(vocab)))
		}
		b.Starts = append(b.Starts, int32(len(b.Tokens)))
	}
	return b
}

// frozen is a fresh model's weights as a source of weights.
func frozen(b testing.TB, cfg model.Config) llama.Weights {
	m, err := llama.New(cfg, nil, llama.Adapter{Full: true, Seed: 1}, cpu.New(2))
	if err != nil {
		b.Fatal(err)
	}
	return source{m}
}

type source struct{ m *llama.Model[float32] }

func (s source) Tensor(name string) ([]float32, []int, error) {
	for _, t := range s.m.Layout() {
		if t.Name == name {
			return s.m.Params()[t.Offset : t.Offset+t.Len()], t.Shape, nil
		}
	}
	panic(name)
}

// BenchmarkStep is one Gradient of 8 sequences of 30 to 256 tokens.
func BenchmarkStep(b *testing.B) {
	all := func(dropout float64) *peft.LoraConfig {
		return &peft.LoraConfig{R: 16, Alpha: 32, Dropout: dropout, TargetModules: []string{"all-linear"}}
	}
	for _, c := range []struct {
		name string
		ad   llama.Adapter
	}{
		{"full", llama.Adapter{Full: true}},
		{"lora", llama.Adapter{LoRA: all(0)}},
		{"lora-dropout", llama.Adapter{LoRA: all(0.05)}},
	} {
		b.Run(c.name, func(b *testing.B) { step(b, c.ad) })
	}
}

func step(b *testing.B, ad llama.Adapter) {
	cfg := embedded()
	m, err := llama.New(cfg, frozen(b, cfg), ad, cpu.New(2))
	if err != nil {
		b.Fatal(err)
	}
	batch := examples(cfg.VocabSize, 30, 256, 61, 128, 97, 200, 44, 150)
	grad := make([]float32, len(m.Params()))
	run := func() {
		if _, err := m.Gradient(batch, 1, engine.Key{}, grad); err != nil {
			b.Fatal(err)
		}
	}
	run()
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64(len(batch.Tokens)*b.N)/b.Elapsed().Seconds(), "tokens/s")
}

// BenchmarkGenerate continues a prompt of 100 tokens by 64.
func BenchmarkGenerate(b *testing.B) {
	cfg := embedded()
	m, err := llama.New(cfg, nil, llama.Adapter{Full: true}, cpu.New(2))
	if err != nil {
		b.Fatal(err)
	}
	prompt := examples(cfg.VocabSize, 100).Tokens
	for b.Loop() {
		if _, err := m.Generate([][]int32{prompt}, engine.Sampling{MaxNew: 64}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(64*b.N)/b.Elapsed().Seconds(), "tokens/s")
}
