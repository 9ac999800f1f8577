package llama

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"lorad/engine"
	"lorad/engine/kernel"
	"lorad/model"
	"lorad/model/peft"
)

func tinyConfig() model.Config {
	return model.Config{
		VocabSize: 23, HiddenSize: 16, IntermediateSize: 20, NumLayers: 2, NumHeads: 4, NumKVHeads: 2, HeadDim: 4,
		RMSNormEps: 1e-5, RopeTheta: 10000, MaxPosition: 128, TieEmbeddings: true,
	}
}

// oddConfig has what only some families have, fusion apart.
func oddConfig() model.Config {
	c := tinyConfig()
	c.QKNorm, c.PostNorms, c.GELU, c.EmbedScale, c.ScoreScale = true, true, true, 1.5, 0.3
	c.Window, c.Sliding, c.SlidingRopeTheta, c.TieEmbeddings = 5, []bool{true, false}, 100, false
	return c
}

// fusedConfig is Phi-3's.
func fusedConfig() model.Config {
	c := tinyConfig()
	c.Fused, c.QKVBias, c.MLPBias, c.TieEmbeddings = true, true, true, false
	c.Window, c.Sliding = 3, []bool{true, true}
	return c
}

// cappedConfig is Gemma 2's, with heads that turn in part, and differently in sequences of more than 20 positions.
func cappedConfig() model.Config {
	c := oddConfig()
	c.NormPlusOne, c.AttnSoftcap, c.LogitSoftcap, c.SlidingRopeTheta, c.RotaryDim = true, 1.5, 2, 0, 4
	c.RopeScaling = model.RopeScaling{Type: "longrope", OriginalMaxPosition: 20, Short: []float64{1, 1.5}, Long: []float64{2, 5}, Attention: 1.2}
	return c
}

// randomWeights draws every tensor from a generator keyed by its name's first use; norms are around 1, the rest wide enough for
// every path to matter.
type randomWeights struct {
	cfg  model.Config
	seed uint64
}

func (w randomWeights) Tensor(name string) ([]float32, []int, error) {
	shape, err := shapeOf(w.cfg, name)
	if err != nil {
		return nil, nil, err
	}
	r := rand.New(rand.NewPCG(w.seed, uint64(len(name))*1000003+uint64(name[len(name)-8])*31+uint64(name[13%len(name)])))
	data := make([]float32, engine.Tensor{Shape: shape}.Len())
	for i := range data {
		data[i] = float32(r.NormFloat64() * 0.3)
		if len(shape) == 1 {
			data[i] += 1
		}
	}
	return data, shape, nil
}

// shapeOf asks a fresh full model for the layout.
func shapeOf(cfg model.Config, name string) ([]int, error) {
	m, err := New[float64](cfg, nil, Adapter{Full: true}, kernel.NewRef[float64]())
	if err != nil {
		return nil, err
	}
	for _, t := range m.Layout() {
		if t.Name == name {
			return t.Shape, nil
		}
	}
	return nil, fmt.Errorf("no tensor %s", name)
}

// packed is three sequences, one of length 1 and one longer than a block of queries, with ignored labels among the others.
func packed(vocab, long int) engine.Batch {
	r := rand.New(rand.NewPCG(1, 1))
	n := 7 + 1 + long
	b := engine.Batch{Starts: []int32{0, 7, 8, int32(n)}}
	for i := range n {
		l := int32(r.IntN(vocab))
		if i%3 == 1 {
			l = engine.Ignore
		}
		b.Tokens, b.Labels = append(b.Tokens, int32(r.IntN(vocab))), append(b.Labels, l)
	}
	return b
}

func TestGradientAgainstCentralDifferences(t *testing.T) {
	untied := tinyConfig()
	untied.TieEmbeddings, untied.QKVBias, untied.OutBias, untied.MLPBias = false, true, true, true
	scaled := tinyConfig()
	scaled.RopeScaling = model.RopeScaling{Type: "llama3", Factor: 4, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPosition: 32}
	scaled.HeadDim, scaled.NumKVHeads = 6, 1
	all := &peft.LoraConfig{R: 3, Alpha: 5, TargetModules: []string{"all-linear"}}
	dropped := &peft.LoraConfig{R: 2, Alpha: 4, Dropout: 0.3, TargetModules: []string{"all-linear"}, UseRSLoRA: true}
	some := &peft.LoraConfig{R: 2, Alpha: 3, Dropout: 0.5, TargetModules: []string{"v_proj", "model.layers.1.mlp.gate_proj", "lm_head"}}
	upper := &peft.LoraConfig{R: 2, Alpha: 3, TargetRegex: `model\.layers\.1\.mlp\.(gate|down)_proj`}
	dora := &peft.LoraConfig{R: 3, Alpha: 5, UseDoRA: true, RankPattern: map[string]int{"v_proj": 1}}
	dora.TargetModules = []string{"q_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "qkv_proj", "gate_up_proj", "lm_head"}
	dropDoRA := *dora
	dropDoRA.Dropout, dropDoRA.Bias = 0.4, peft.BiasLoraOnly
	saved := &peft.LoraConfig{R: 2, Alpha: 3, Dropout: 0.2, TargetModules: []string{"v_proj"}, Bias: peft.BiasLoraOnly,
		ModulesToSave: []string{"embed_tokens", "lm_head", "norm", "layers.0.mlp.up_proj"}}
	head := &peft.LoraConfig{R: 2, Alpha: 3, Dropout: 0.1, TargetModules: []string{"lm_head"}}
	for name, c := range map[string]struct {
		cfg model.Config
		ad  Adapter
	}{
		"full, tied":                    {tinyConfig(), Adapter{Full: true}},
		"full, untied, biases":          {untied, Adapter{Full: true}},
		"full, llama3 rope":             {scaled, Adapter{Full: true}},
		"LoRA, NEFTune, dropout":        {tinyConfig(), Adapter{LoRA: dropped, NEFTune: 5}},
		"full, NEFTune":                 {oddConfig(), Adapter{Full: true, NEFTune: 5}},
		"full, odd":                     {oddConfig(), Adapter{Full: true}},
		"full, fused":                   {fusedConfig(), Adapter{Full: true}},
		"full, capped":                  {cappedConfig(), Adapter{Full: true}},
		"LoRA, capped, saved":           {cappedConfig(), Adapter{LoRA: saved}},
		"LoRA, odd, dropout":            {oddConfig(), Adapter{LoRA: dropped}},
		"LoRA, fused, dropout":          {fusedConfig(), Adapter{LoRA: dropped}},
		"LoRA, all linear":              {tinyConfig(), Adapter{LoRA: all}},
		"LoRA, dropout":                 {tinyConfig(), Adapter{LoRA: dropped}},
		"LoRA, dropout, untied, biases": {untied, Adapter{LoRA: dropped}},
		"LoRA, some modules":            {untied, Adapter{LoRA: some}},
		"LoRA, upper layer's MLP only":  {tinyConfig(), Adapter{LoRA: upper}},
		"LoRA, head only":               {untied, Adapter{LoRA: head}},
		"DoRA":                          {tinyConfig(), Adapter{LoRA: dora}},
		"DoRA, dropout, biases":         {untied, Adapter{LoRA: &dropDoRA}},
		"DoRA, fused, dropout":          {fusedConfig(), Adapter{LoRA: &dropDoRA}},
		"LoRA, saved modules, biases":   {untied, Adapter{LoRA: saved}},
	} {
		t.Run(name, func(t *testing.T) { checkGradient(t, c.cfg, c.ad) })
	}
}

func checkGradient(t *testing.T, cfg model.Config, ad Adapter) {
	m, err := New(cfg, randomWeights{cfg, 3}, ad, kernel.NewRef[float64]())
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 7))
	if ad.LoRA != nil { // B starts as zero, which would hide the gradient of A
		for i := range m.Params() {
			m.Params()[i] = r.NormFloat64() * 0.3
		}
	}
	b, key := packed(cfg.VocabSize, 40), engine.Key{Seed: 9, Step: 4, Micro: 2}
	const scale = 0.125
	grad := make([]float64, len(m.Params()))
	for i := range grad {
		grad[i] = math.NaN() // Gradient overwrites
	}
	if _, err := m.Gradient(b, scale, key, grad); err != nil {
		t.Fatal(err)
	}
	for _, w := range m.Layout() {
		var diff, norm float64
		for range min(w.Len(), 4) {
			i := w.Offset + r.IntN(w.Len())
			want := scale * slope(m, b, key, i)
			diff, norm = diff+(grad[i]-want)*(grad[i]-want), norm+want*want
		}
		if e := math.Sqrt(diff) / math.Max(math.Sqrt(norm), 1e-6); !(e <= 1e-6) {
			t.Errorf("%s: ||grad-difference||/||difference|| = %.2g, want at most 1e-6", w.Name, e)
		}
	}
}

// slope is the five-point central difference of the loss by parameter i, with the dropout of key.
func slope(m *Model[float64], b engine.Batch, key engine.Key, i int) float64 {
	p := m.Params()
	x := p[i]
	defer func() { p[i] = x }()
	const h = 2e-4
	at := func(d float64) float64 {
		p[i] = x + d
		m.stale = !m.dora // whose norms count as constants
		return lossWithDropout(m, b, key)
	}
	return (8*(at(h)-at(-h)) - (at(2*h) - at(-2*h))) / (12 * h)
}

// lossWithDropout is the forward pass of Gradient alone.
func lossWithDropout(m *Model[float64], b engine.Batch, key engine.Key) float64 {
	p, err := m.newPass(b)
	if err != nil {
		panic(err)
	}
	m.buf.key, m.buf.drops = key, m.dropout > 0
	defer func() { m.buf.drops = false }()
	m.selectLabelled(p)
	m.reserve(p.rows, true)
	m.run(p, nil, true)
	return m.headLoss(p, 1, false)
}

// TestRecomputedLayersHaveTheSameBits forces the way of large models on a small one.
func TestRecomputedLayersHaveTheSameBits(t *testing.T) {
	cfg := oddConfig()
	cfg.NumLayers, cfg.Sliding = 4, []bool{true, false, true, true}
	lc := &peft.LoraConfig{R: 2, Alpha: 4, Dropout: 0.3, TargetRegex: `model\.layers\.[123]\..*_proj`}
	for name, ad := range map[string]Adapter{"full": {Full: true}, "lora": {LoRA: lc}} {
		var want []float32
		for i, again := range []int{0, 2, -1, 0, 2} {
			m, err := New(cfg, randomWeights{cfg, 3}, ad, kernel.NewRef[float32]())
			if err != nil {
				t.Fatal(err)
			}
			for i := range m.params {
				m.params[i] += float32(i%7) * 0.02
			}
			if i > 2 {
				m.leanFrom = 1
			}
			layers := len(m.layers) - m.lowest
			if again < 0 {
				again = layers
			}
			layer, input := m.layerBytes(78)
			m.Prepare(Batch{Rows: 78, Labelled: 78}, int64(layers-again)*layer+int64(again)*input)
			got := make([]float32, len(m.params))
			if _, err := m.Gradient(packed(cfg.VocabSize, 70), 1, engine.Key{Step: 3}, got); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			if m.buf.again != again || m.buf.lean != (i > 2) || !slices.Equal(got, want) {
				t.Errorf("%s: %d of %d layers computed again, want %d, lean is %v; same bits is %v", name, m.buf.again, layers, again, m.buf.lean, slices.Equal(got, want))
			}
		}
	}
}
