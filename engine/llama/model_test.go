package llama_test

import (
	"errors"
	"io/fs"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/model"
	"lorad/model/peft"
)

func small() model.Config {
	c := embedded()
	c.VocabSize, c.HiddenSize, c.IntermediateSize, c.NumLayers, c.HeadDim = 101, 48, 80, 3, 12
	return c
}

func allLinear(dropout float64) *peft.LoraConfig {
	return &peft.LoraConfig{R: 4, Alpha: 8, Dropout: dropout, TargetModules: []string{"all-linear"}}
}

func mustNew[T kernel.Float](t testing.TB, cfg model.Config, w llama.Weights, ad llama.Adapter, ops kernel.Ops[T]) *llama.Model[T] {
	t.Helper()
	m, err := llama.New(cfg, w, ad, ops)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// stir makes every parameter, B included, non-zero.
func stir(m *llama.Model[float32]) {
	for i := range m.Params() {
		m.Params()[i] += float32(math.Sin(float64(i))) * 0.05
	}
	m.Changed()
}

func gradient(t testing.TB, m *llama.Model[float32], b engine.Batch, k engine.Key) []float32 {
	t.Helper()
	g := make([]float32, len(m.Params()))
	for i := range g {
		g[i] = float32(math.NaN())
	}
	if _, err := m.Gradient(b, 1, k, g); err != nil {
		t.Fatal(err)
	}
	return g
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// TestBits: the gradient of a micro-batch depends on nothing but its arguments: not on threads, on what was computed
// before, or on how large the buffers have grown.
func TestBits(t *testing.T) {
	cfg := small()
	key := engine.Key{Seed: 1, Step: 7, Micro: 3}
	for name, ad := range map[string]llama.Adapter{"full": {Full: true}, "lora": {LoRA: allLinear(0.2)}, "bf16": {LoRA: allLinear(0.2), Precision: kernel.BF16}} {
		t.Run(name, func(t *testing.T) {
			b := examples(cfg.VocabSize, 30, 1, 99, 64)
			b.Labels[3], b.Labels[30] = engine.Ignore, engine.Ignore
			var want []float32
			for _, threads := range []int{1, 2, 3} {
				m := mustNew(t, cfg, frozen(t, cfg), ad, cpu.New(threads))
				stir(m)
				first := gradient(t, m, b, key)
				if want == nil {
					want = first
				}
				if !sameBits(first, want) {
					t.Errorf("%d threads: other bits than with one", threads)
				}
				gradient(t, m, examples(cfg.VocabSize, 300, 31), engine.Key{Step: 1})
				if _, err := m.Generate([][]int32{b.Tokens[:5], b.Tokens[:9]}, engine.Sampling{MaxNew: 3}); err != nil {
					t.Fatal(err)
				}
				if !sameBits(gradient(t, m, b, key), want) {
					t.Errorf("%d threads: other bits after other work", threads)
				}
			}
			if other := gradient(t, mustNew(t, cfg, frozen(t, cfg), ad, cpu.New(1)), b, engine.Key{Seed: 1, Step: 8, Micro: 3}); sameBits(other, want) {
				t.Error("another model and step give the same bits: the test cannot fail")
			}
		})
	}
}

// TestBF16: with frozen weights in bf16 the gradient is that of the reference, which rounds and then computes in float64, and near that in f32.
func TestBF16(t *testing.T) {
	cfg := small()
	b := examples(cfg.VocabSize, 30, 1, 60)
	lc := &peft.LoraConfig{R: 4, Alpha: 8, TargetModules: []string{"all-linear"}}
	grad := func(p kernel.Precision) []float32 {
		m := mustNew(t, cfg, frozen(t, cfg), llama.Adapter{LoRA: lc, Precision: p}, cpu.New(2))
		stir(m)
		return gradient(t, m, b, engine.Key{})
	}
	ref := mustNew(t, cfg, frozen(t, cfg), llama.Adapter{LoRA: lc, Precision: kernel.BF16}, kernel.NewRef[float64]())
	for i := range ref.Params() {
		ref.Params()[i] += float64(float32(math.Sin(float64(i))) * 0.05)
	}
	exact := make([]float64, len(ref.Params()))
	if _, err := ref.Gradient(b, 1, engine.Key{}, exact); err != nil {
		t.Fatal(err)
	}
	half, full := grad(kernel.BF16), grad(kernel.F32)
	var off, apart, norm float64
	for i, x := range exact {
		off += (float64(half[i]) - x) * (float64(half[i]) - x)
		apart += (float64(half[i]) - float64(full[i])) * (float64(half[i]) - float64(full[i]))
		norm += x * x
	}
	if off, apart = math.Sqrt(off/norm), math.Sqrt(apart/norm); off > 2e-3 || apart < 1e-3 || apart > 3e-2 {
		t.Errorf("relative difference to the reference %.2g (want at most 2e-3), to f32 %.2g (want 1e-3 to 3e-2)", off, apart)
	} else {
		t.Logf("relative difference to the reference %.2g, to f32 %.2g", off, apart)
	}
}

func TestNoLabelsNoGradient(t *testing.T) {
	cfg := small()
	m := mustNew(t, cfg, nil, llama.Adapter{Full: true}, cpu.New(1))
	b := examples(cfg.VocabSize, 4)
	for i := range b.Labels {
		b.Labels[i] = engine.Ignore
	}
	if g := gradient(t, m, b, engine.Key{}); slices.ContainsFunc(g, func(x float32) bool { return x != 0 }) {
		t.Error("a batch without labels has a gradient")
	}
}

func TestWarmStepAllocatesNoBuffers(t *testing.T) {
	cfg := small()
	m := mustNew(t, cfg, frozen(t, cfg), llama.Adapter{LoRA: allLinear(0.1)}, kernel.NewRef[float32]())
	b, g := examples(cfg.VocabSize, 20, 10), make([]float32, len(m.Params()))
	step := func() {
		if _, err := m.Gradient(b, 1, engine.Key{}, g); err != nil {
			t.Fatal(err)
		}
	}
	step()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		step()
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / 10; n > 32<<10 {
		t.Errorf("%d bytes per step; closures may be, buffers may not", n)
	}
}

func TestLayoutAndInitialValues(t *testing.T) {
	cfg := small()
	m := mustNew(t, cfg, frozen(t, cfg), llama.Adapter{LoRA: &peft.LoraConfig{R: 4, Alpha: 8, TargetModules: []string{"v_proj", "q_proj"}}, Seed: 9}, cpu.New(1))
	next := 0
	for i, w := range m.Layout() {
		p := m.Params()[w.Offset : w.Offset+w.Len()]
		isB, isV := i%2 == 1, i%4 > 1
		want := "base_model.model.model.layers." + string(rune('0'+i/4)) + ".self_attn." + map[bool]string{false: "q", true: "v"}[isV] + "_proj.lora_" + map[bool]string{false: "A", true: "B"}[isB] + ".weight"
		if w.Name != want || w.Offset != next {
			t.Errorf("tensor %d is %s at %d, want %s at %d", i, w.Name, w.Offset, want, next)
		}
		if zero := !slices.ContainsFunc(p, func(x float32) bool { return x != 0 }); zero != isB {
			t.Errorf("%s: all zero is %v, want %v", w.Name, zero, isB)
		}
		next += w.Len()
	}
	if next != len(m.Params()) || len(m.Layout()) != 4*cfg.NumLayers {
		t.Errorf("%d tensors with %d elements, params has %d", len(m.Layout()), next, len(m.Params()))
	}
	again := mustNew(t, cfg, frozen(t, cfg), llama.Adapter{LoRA: &peft.LoraConfig{R: 4, Alpha: 8, TargetModules: []string{"q_proj", "v_proj"}}, Seed: 9}, cpu.New(1))
	if !sameBits(m.Params(), again.Params()) {
		t.Error("the same seed gives other initial values")
	}
}

// missing hides one tensor.
type missing struct {
	llama.Weights
	name string
}

func (w missing) Tensor(name string) ([]float32, []int, error) {
	if name == w.name || w.name == "*" {
		return nil, nil, fs.ErrNotExist
	}
	return w.Weights.Tensor(name)
}

func TestNewRefuses(t *testing.T) {
	cfg := small()
	good := frozen(t, cfg)
	yarn, narrow := cfg, cfg
	yarn.RopeScaling.Type, narrow.IntermediateSize = "yarn", 79
	targets := func(names ...string) llama.Adapter {
		return llama.Adapter{LoRA: &peft.LoraConfig{R: 4, Alpha: 8, TargetModules: names}}
	}
	stray := targets("q_proj")
	stray.Init = map[string][]float32{"base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight": nil}
	short := targets("q_proj")
	short.Init = map[string][]float32{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": {1}}
	for says, c := range map[string]struct {
		cfg model.Config
		w   llama.Weights
		ad  llama.Adapter
	}{
		`rope type "yarn"`:               {yarn, good, targets("q_proj")},
		"match no linear layer":          {cfg, good, targets("c_attn")},
		"match the embedding":            {cfg, good, targets("q_proj", "embed_tokens")},
		"which is not trained here":      {cfg, good, stray},
		"1 elements, want shape [4 48]":  {cfg, good, short},
		"config.json says [79 48]":       {narrow, good, targets("q_proj")},
		"1 tensors are missing":          {cfg, missing{good, "model.norm.weight"}, targets("q_proj")},
		"missing, the first is model.no": {cfg, missing{good, "model.norm.weight"}, llama.Adapter{Full: true}},
		"29 tensors are missing":         {cfg, missing{good, "*"}, targets("q_proj")},
		"choose one":                     {cfg, good, llama.Adapter{Full: true, LoRA: allLinear(0)}},
	} {
		_, err := llama.New(c.cfg, c.w, c.ad, cpu.New(1))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error with %q, got %v", says, err)
		}
		if strings.Contains(says, "missing") && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q is not fs.ErrNotExist", err)
		}
	}
	if _, err := llama.New(cfg, missing{good, "*"}, llama.Adapter{Full: true}, cpu.New(1)); err != nil {
		t.Errorf("a fresh model: %v", err)
	}
}

func TestBatchesThatDoNotFit(t *testing.T) {
	cfg := small()
	m := mustNew(t, cfg, nil, llama.Adapter{Full: true}, cpu.New(1))
	g := make([]float32, len(m.Params()))
	for name, b := range map[string]engine.Batch{
		"token":  {Tokens: []int32{101}, Labels: []int32{0}, Starts: []int32{0, 1}},
		"label":  {Tokens: []int32{0}, Labels: []int32{-1}, Starts: []int32{0, 1}},
		"starts": {Tokens: []int32{0, 1}, Labels: []int32{0, 1}, Starts: []int32{0, 1}},
		"order":  {Tokens: []int32{0, 1}, Labels: []int32{0, 1}, Starts: []int32{0, 3, 2}},
		"empty":  {Tokens: []int32{0}, Labels: []int32{0}, Starts: []int32{0, 0, 1}},
		"none":   {},
	} {
		if _, err := m.Gradient(b, 1, engine.Key{}, g); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestNEFTuneIsForTrainingAlone: the loss that is trained on changes with the noise and its key, evaluation does not.
func TestNEFTuneIsForTrainingAlone(t *testing.T) {
	cfg := small()
	b := examples(cfg.VocabSize, 40, 9)
	var losses []float64
	for _, alpha := range []float64{0, 5} {
		m := mustNew(t, cfg, frozen(t, cfg), llama.Adapter{LoRA: allLinear(0), NEFTune: alpha}, kernel.NewRef[float32]())
		g := make([]float32, len(m.Params()))
		eval, err := m.Loss(b)
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, eval)
		for _, k := range []engine.Key{{Step: 1}, {Step: 1}, {Step: 2}} {
			l, err := m.Gradient(b, 1, k, g)
			if err != nil {
				t.Fatal(err)
			}
			losses = append(losses, l)
		}
	}
	clean, noisy := losses[:4], losses[4:]
	if noisy[0] != clean[0] || math.Abs(clean[1]-clean[0]) > 1e-9*clean[0] || clean[1] != clean[3] {
		t.Errorf("without noise: %v; evaluated with it: %v", clean, noisy[0])
	}
	if noisy[1] == clean[1] || noisy[1] != noisy[2] || noisy[1] == noisy[3] {
		t.Errorf("with noise: %v", noisy)
	}
}
