package llama_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/model"
)

func generate(t testing.TB, m *llama.Model[float32], how engine.Sampling, prompts ...[]int32) [][]int32 {
	t.Helper()
	out, err := m.Generate(prompts, how)
	if err != nil || len(out) != len(prompts) {
		t.Fatalf("%d continuations of %d prompts, %v", len(out), len(prompts), err)
	}
	return out
}

// Keys and values that were kept give what computing everything again gives, for prompts of any lengths side by side.
func TestGenerateGreedyIsTheArgmaxOfLogits(t *testing.T) {
	odd, fused := small(), small()
	odd.QKNorm, odd.PostNorms, odd.GELU, odd.EmbedScale, odd.SlidingRopeTheta = true, true, true, 2, 500
	odd.Window, odd.Sliding = 9, make([]bool, odd.NumLayers)
	odd.Sliding[0] = true
	fused.Fused = true
	for name, cfg := range map[string]model.Config{"llama": small(), "odd": odd, "fused": fused} {
		t.Run(name, func(t *testing.T) { greedy(t, cfg, kernel.NewRef[float32]()) })
		t.Run(name+" with the best kernels", func(t *testing.T) { greedy(t, cfg, cpu.New(2)) })
	}
}

func greedy(t *testing.T, cfg model.Config, ops kernel.Ops[float32]) {
	m := mustNew(t, cfg, frozen(t, cfg), llama.Adapter{LoRA: allLinear(0.5)}, ops)
	stir(m)
	prompts := [][]int32{{1, 17, 4, 99, 23}, {7}, examples(cfg.VocabSize, 70).Tokens}
	for i, got := range generate(t, m, engine.Sampling{MaxNew: 80}, prompts...) {
		if len(got) != 80 {
			t.Fatalf("%d tokens", len(got))
		}
		checkGreedy(t, cfg, m, prompts[i], got)
		stopped := generate(t, m, engine.Sampling{MaxNew: 80, Stop: []int32{got[10]}}, prompts[i])[0]
		if want := got[:slices.Index(got, got[10])]; !slices.Equal(stopped, want) {
			t.Errorf("with a stop token: %v, want %v", stopped, want)
		}
	}
}

// checkGreedy needs one forward pass: the logits of all positions of prompt and continuation together.
func checkGreedy(t *testing.T, cfg model.Config, m *llama.Model[float32], prompt, got []int32) {
	t.Helper()
	logits, err := m.Logits(slices.Concat(prompt, got))
	if err != nil {
		t.Fatal(err)
	}
	for i, next := range got {
		at := len(prompt) + i - 1
		row := logits[at*cfg.VocabSize : (at+1)*cfg.VocabSize]
		if best := slices.Max(row); best-row[next] > 1e-4 {
			t.Fatalf("token %d is %d with logit %v; the largest is %v", i, next, row[next], best)
		}
	}
}

// A prompt's continuation does not depend on its company. Temperature makes every bit of the logits count.
func TestGenerateTogetherIsGenerateAlone(t *testing.T) {
	cfg := small()
	m := mustNew(t, cfg, frozen(t, cfg), llama.Adapter{LoRA: allLinear(0)}, cpu.New(2))
	stir(m)
	rapid.Check(t, func(r *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		var prompts [][]int32
		for range rapid.IntRange(1, 40).Draw(r, "prompts") {
			p := make([]int32, 1+rnd.IntN(rapid.IntRange(1, 60).Draw(r, "longest")))
			for i := range p {
				p[i] = int32(rnd.IntN(cfg.VocabSize))
			}
			prompts = append(prompts, p)
		}
		how := engine.Sampling{MaxNew: rapid.IntRange(0, 12).Draw(r, "new"), Temperature: 1, Seed: rnd.Uint64(), Stop: []int32{3, 4, 5, 6, 7, 8}}
		got := generate(t, m, how, prompts...)
		for range 3 {
			i := rnd.IntN(len(prompts))
			if alone := generate(t, m, how, prompts[i])[0]; !slices.Equal(alone, got[i]) {
				r.Fatalf("prompt %d of %d: %v in company, %v alone", i, len(prompts), got[i], alone)
			}
		}
	})
}

func TestGenerateSamples(t *testing.T) {
	cfg := small()
	m := mustNew(t, cfg, nil, llama.Adapter{Full: true, Seed: 3}, cpu.New(1))
	draw := func(o engine.Sampling) []int32 {
		t.Helper()
		o.MaxNew = 30
		return generate(t, m, o, []int32{5, 6})[0]
	}
	a := draw(engine.Sampling{Temperature: 1, Seed: 1})
	if !slices.Equal(a, draw(engine.Sampling{Temperature: 1, Seed: 1})) {
		t.Error("the same seed gives another text")
	}
	if slices.Equal(a, draw(engine.Sampling{Temperature: 1, Seed: 2})) {
		t.Error("another seed gives the same text")
	}
	if greedy := draw(engine.Sampling{}); !slices.Equal(greedy, draw(engine.Sampling{Temperature: 1, TopP: 1e-9, Seed: 4})) {
		t.Error("a nucleus of one token is not greedy")
	}
	for _, bad := range [][][]int32{{{1}, nil}, {{1}, {int32(cfg.VocabSize)}}, {{-1}}} {
		if _, err := m.Generate(bad, engine.Sampling{MaxNew: 1}); err == nil {
			t.Errorf("prompts %v are accepted", bad)
		}
	}
	if _, err := m.Generate([][]int32{{1}}, engine.Sampling{MaxNew: 1, TopP: 2}); err == nil {
		t.Error("a top_p of 2 is accepted")
	}
}
