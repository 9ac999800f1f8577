package cuda

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"testing"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/engine/optim"
	"lorad/model"
	"lorad/model/peft"
)

// tiny has all that the shapes can have: grouped heads, a window in one layer, biases.
func tiny() model.Config {
	return model.Config{
		VocabSize: 97, HiddenSize: 128, IntermediateSize: 192, NumLayers: 3, NumHeads: 2, NumKVHeads: 1, HeadDim: 64,
		RMSNormEps: 1e-5, RopeTheta: 10000, MaxPosition: 512,
	}
}

// waves is a source of weights that holds none: each is drawn when it is asked for, and is a bf16 already.
type waves struct{ shapes map[string][]int }

func newWaves(cfg model.Config) waves {
	w := waves{map[string][]int{}}
	for _, t := range cfg.Tensors() {
		w.shapes[t.Name] = t.Shape
	}
	return w
}

func (w waves) Tensor(name string) ([]float32, []int, error) {
	shape, ok := w.shapes[name]
	if !ok {
		return nil, nil, fmt.Errorf("no %s", name)
	}
	n := 1
	for _, d := range shape {
		n *= d
	}
	x := draw(name, n, 0.08)
	for i := range x {
		if len(shape) == 1 && !strings.HasSuffix(name, ".bias") {
			x[i]++
		}
		x[i] = kernel.WidenBF16(kernel.RoundBF16(x[i]))
	}
	return x, shape, nil
}

func draw(name string, n int, size float32) []float32 {
	h := fnv.New64a()
	h.Write([]byte(name))
	s, x := h.Sum64(), make([]float32, n)
	for i := range x {
		s = s*6364136223846793005 + 1442695040888963407
		x[i] = float32(int32(s>>32)) * (size / (1 << 31))
	}
	return x
}

// ragged is sequences of these lengths; the first third of each carries no loss.
func ragged(vocab int, lengths ...int) engine.Batch {
	b := engine.Batch{Starts: []int32{0}}
	for s, n := range lengths {
		for i := range n {
			b.Tokens = append(b.Tokens, int32((7*i+13*s+i*i/3)%vocab))
			b.Labels = append(b.Labels, int32((11*i+5*s+3)%vocab))
			if i < n/3 {
				b.Labels[len(b.Labels)-1] = engine.Ignore
			}
		}
		b.Starts = append(b.Starts, int32(len(b.Tokens)))
	}
	return b
}

func config(dropout float64, targets ...string) *peft.LoraConfig {
	return &peft.LoraConfig{R: 4, Alpha: 8, Dropout: dropout, TargetModules: targets}
}

// adapterOf is LoRA with values for B too, so that every gradient is one.
func adapterOf(t testing.TB, cfg model.Config, lc *peft.LoraConfig) llama.Adapter {
	t.Helper()
	ad := llama.Adapter{LoRA: lc, Seed: 3, Precision: kernel.BF16, Init: map[string][]float32{}}
	layout := must(llama.Layout(cfg, ad))(t)
	for _, l := range layout {
		ad.Init[l.Name] = draw(l.Name, l.Len(), 0.05)
	}
	return ad
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

const roomy = 64<<20 + library

func trainer(t testing.TB, cfg model.Config, ad llama.Adapter) *Trainer {
	t.Helper()
	m := must(New(cfg, newWaves(cfg), ad, newSim(roomy)))(t)
	t.Cleanup(func() { m.Close() })
	return m
}

// apart is ||a-b|| / ||b||, and the cosine between them.
func apart(a, b []float32) (relative, cosine float64) {
	var diff, aa, bb, ab float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		diff, aa, bb, ab = diff+(x-y)*(x-y), aa+x*x, bb+y*y, ab+x*y
	}
	if bb == 0 && aa == 0 {
		return 0, 1
	}
	return math.Sqrt(diff / bb), ab / math.Sqrt(aa*bb)
}

// The limits that bf16 may be apart from f32.
const (
	gradApart  = 3e-2
	gradCosine = 0.9995
	lossApart  = 5e-3
)

// sameGradients holds a trainer to the CPU engine: the loss, and the gradient of every tensor.
func sameGradients(t *testing.T, m engine.Trainer, reference engine.Trainer, b engine.Batch, key engine.Key) {
	t.Helper()
	got, want := make([]float32, len(m.Params())), make([]float32, len(m.Params()))
	for i := range got {
		got[i] = float32(math.NaN())
	}
	loss := must(m.Gradient(b, 0.01, key, got))(t)
	exact := must(reference.Gradient(b, 0.01, key, want))(t)
	if math.Abs(loss-exact) > lossApart*exact {
		t.Errorf("loss %v, the CPU engine says %v", loss, exact)
	}
	worst, where, least := 0.0, "", 1.0
	for _, l := range m.Layout() {
		d, c := apart(got[l.Offset:l.Offset+l.Len()], want[l.Offset:l.Offset+l.Len()])
		if !(d <= gradApart) || !(c >= gradCosine) {
			t.Errorf("%s: ||a-b||/||b|| = %.2g, cosine %.6f", l.Name, d, c)
		}
		if d >= worst {
			worst, where = d, l.Name
		}
		least = min(least, c)
	}
	t.Logf("loss %.5f and %.5f; worst gradient apart by %.2g (%s), least cosine %.6f", loss, exact, worst, where, least)
}

func reference(t *testing.T, cfg model.Config, ad llama.Adapter, p kernel.Precision) engine.Trainer {
	t.Helper()
	ad.Precision = p
	return must(llama.New[float32](cfg, newWaves(cfg), ad, cpu.New(2)))(t)
}

var batches = []engine.Batch{ragged(97, 40, 23, 1, 7), ragged(97, 130, 9)}

func TestGradients(t *testing.T) {
	window, bias, tied := tiny(), tiny(), tiny()
	window.Window, window.Sliding = 12, []bool{false, true, false}
	bias.QKVBias = true
	tied.TieEmbeddings, tied.NumKVHeads = true, 2
	tied.RopeScaling = model.RopeScaling{Type: "linear", Factor: 2}
	patterns := config(0, "all-linear")
	patterns.UseRSLoRA, patterns.RankPattern, patterns.AlphaPattern = true, map[string]int{"k_proj": 3, "layers.1.mlp.up_proj": 9}, map[string]float64{"v_proj": 2}
	for _, c := range []struct {
		name string
		cfg  model.Config
		lora *peft.LoraConfig
	}{
		{"all", tiny(), config(0, "all-linear")},
		{"dropout", tiny(), config(0.25, "all-linear")},
		{"patterns", tiny(), patterns},
		{"q and v", tiny(), config(0, "q_proj", "v_proj")},
		{"down of one layer", tiny(), config(0, "layers.1.mlp.down_proj")},
		{"up with dropout", tiny(), config(0.5, "layers.2.mlp.up_proj", "layers.1.self_attn.o_proj")},
		{"window", window, config(0, "all-linear")},
		{"bias", bias, config(0, "all-linear")},
		{"tied", tied, config(0, "all-linear")},
	} {
		t.Run(c.name, func(t *testing.T) {
			ad := adapterOf(t, c.cfg, c.lora)
			m := trainer(t, c.cfg, ad)
			key := engine.Key{Seed: 5, Step: 7, Micro: 3}
			sameGradients(t, m, reference(t, c.cfg, ad, kernel.F32), batches[0], key)
			if c.name == "all" {
				sameGradients(t, m, reference(t, c.cfg, ad, kernel.BF16), batches[0], key)
				sameGradients(t, m, reference(t, c.cfg, ad, kernel.F32), batches[1], key)
			}
		})
	}
}

// With B = 0 the adapter computes nothing: the gradients of A are exactly zero, and the loss is the base's.
func TestFreshAdapter(t *testing.T) {
	cfg := tiny()
	m := trainer(t, cfg, llama.Adapter{LoRA: config(0, "all-linear"), Seed: 3, Precision: kernel.BF16})
	base := trainer(t, cfg, llama.Adapter{Precision: kernel.BF16})
	grad := make([]float32, len(m.Params()))
	loss := must(m.Gradient(batches[0], 1, engine.Key{}, grad))(t)
	if want := must(base.Loss(batches[0]))(t); loss != want {
		t.Errorf("loss %v, that of the base %v", loss, want)
	}
	for _, l := range m.Layout() {
		zero := !slices.ContainsFunc(grad[l.Offset:l.Offset+l.Len()], func(x float32) bool { return x != 0 })
		if zero != strings.Contains(l.Name, "lora_A") {
			t.Errorf("%s: all zeros: %t", l.Name, zero)
		}
	}
	cpu := reference(t, cfg, llama.Adapter{LoRA: config(0, "all-linear"), Seed: 3}, kernel.F32)
	if !slices.Equal(m.Params(), cpu.Params()) {
		t.Error("it begins with other parameters than the CPU engine")
	}
}

func TestLossAndLogits(t *testing.T) {
	cfg := tiny()
	ad := adapterOf(t, cfg, config(0.5, "all-linear"))
	m, cpu := trainer(t, cfg, ad), reference(t, cfg, ad, kernel.F32)
	got, want := must(m.Loss(batches[0]))(t), must(cpu.Loss(batches[0]))(t)
	if math.Abs(got-want) > lossApart*want {
		t.Errorf("loss %v, the CPU engine says %v", got, want)
	}
	tokens := batches[1].Tokens[:130]
	x, y := must(m.Logits(tokens))(t), must(cpu.Logits(tokens))(t)
	if d, _ := apart(x, y); len(x) != len(y) || !(d < 1e-2) {
		t.Errorf("logits apart by %.2g", d)
	}
}

// A gradient's bits are a function of the micro-batch: not of what was computed before, of the memory there is, or of who recorded it.
func TestBits(t *testing.T) {
	cfg := tiny()
	ad := adapterOf(t, cfg, config(0.1, "all-linear"))
	m := trainer(t, cfg, ad)
	key := engine.Key{Seed: 9, Step: 2, Micro: 1}
	want := make([]float32, len(m.Params()))
	loss := must(m.Gradient(batches[0], 1, key, want))(t)
	check := func(m *Trainer, what string) {
		t.Helper()
		got := make([]float32, len(want))
		if l := must(m.Gradient(batches[0], 1, key, got))(t); l != loss || !slices.Equal(got, want) {
			t.Errorf("%s: other bits", what)
		}
	}
	check(m, "again")
	must(m.Gradient(batches[1], 0.3, engine.Key{Seed: 1}, make([]float32, len(want))))(t)
	must(m.Loss(batches[1]))(t)
	must(m.Logits(batches[1].Tokens[:50]))(t)
	check(m, "after a larger batch")
	other := trainer(t, cfg, ad)
	must(other.Gradient(batches[1], 1, key, make([]float32, len(want))))(t)
	check(other, "another trainer")
	peak := m.Plan().Peak
	for degree := 1; m.Leaner(); degree++ {
		check(m, fmt.Sprintf("leaner %d times", degree))
		if p := m.Plan().Peak; p >= peak {
			t.Errorf("leaner %d times: a peak of %d after %d", degree, p, peak)
		} else {
			peak = p
		}
	}
	if p := m.Plan(); p.Recompute != 2*cfg.NumLayers {
		t.Errorf("it became leaner down to %+v", p)
	}
}

// Four sequences at once are four times one: rows do not see each other, and the sums over them are in f32.
func TestAccumulation(t *testing.T) {
	cfg := tiny()
	m := trainer(t, cfg, adapterOf(t, cfg, config(0, "all-linear")))
	b := batches[0]
	together, one, sum := make([]float32, len(m.Params())), make([]float32, len(m.Params())), make([]float32, len(m.Params()))
	loss := must(m.Gradient(b, 0.01, engine.Key{}, together))(t)
	for i, lo := range b.Starts[:len(b.Starts)-1] {
		hi := b.Starts[i+1]
		part := engine.Batch{Tokens: b.Tokens[lo:hi], Labels: b.Labels[lo:hi], Starts: []int32{0, hi - lo}}
		loss -= must(m.Gradient(part, 0.01, engine.Key{}, one))(t)
		for j, g := range one {
			sum[j] += g
		}
	}
	if d, _ := apart(sum, together); !(d < 1e-5) || math.Abs(loss) > 1e-3 {
		t.Errorf("gradients apart by %.2g, losses by %.2g", d, loss)
	}
}

func TestNothingToLearn(t *testing.T) {
	cfg := tiny()
	m := trainer(t, cfg, adapterOf(t, cfg, config(0, "q_proj")))
	b := ragged(97, 5)
	for i := range b.Labels {
		b.Labels[i] = engine.Ignore
	}
	grad := draw("", len(m.Params()), 1)
	if loss := must(m.Gradient(b, 1, engine.Key{}, grad))(t); loss != 0 || slices.ContainsFunc(grad, func(x float32) bool { return x != 0 }) {
		t.Error("there is a gradient without labels")
	}
}

func (g countedGraph) Launch() error { g.c.graphs++; return g.Graph.Launch() }
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		change func(*model.Config, *llama.Adapter)
		says   string
	}{
		{func(c *model.Config, a *llama.Adapter) { a.LoRA.UseDoRA = true }, "use_dora"},
		{func(c *model.Config, a *llama.Adapter) { a.LoRA.ModulesToSave = []string{"lm_head"} }, "modules_to_save"},
		{func(c *model.Config, a *llama.Adapter) { a.LoRA, a.Full, a.Precision = nil, true, kernel.F32 }, "full fine-tuning"},
		{func(c *model.Config, a *llama.Adapter) { a.Precision = kernel.F32 }, "dtype: bf16"},
		{func(c *model.Config, a *llama.Adapter) { c.HeadDim = 32 }, "heads of 32"},
		{func(c *model.Config, a *llama.Adapter) { c.HeadDim, c.QKNorm = 96, true }, "heads of 96"},
		{func(c *model.Config, a *llama.Adapter) { c.GELU = true }, "Gemma"},
		{func(c *model.Config, a *llama.Adapter) { c.RotaryDim = 40 }, "partial rotary"},
		{func(c *model.Config, a *llama.Adapter) { c.LogitSoftcap = 30 }, "soft caps"},
		{func(c *model.Config, a *llama.Adapter) { a.LoRA.Init = "pissa" }, "pissa"},
	} {
		cfg, ad := tiny(), llama.Adapter{LoRA: config(0, "q_proj"), Precision: kernel.BF16}
		if err := Supports(cfg, ad); err != nil {
			t.Fatal(err)
		}
		c.change(&cfg, &ad)
		if err := Supports(cfg, ad); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want it to say %s", err, c.says)
		}
	}
}

// TestLossCurve trains with the CPU's optimiser, on both engines.
func TestLossCurve(t *testing.T) {
	cfg := tiny()
	ad := llama.Adapter{LoRA: config(0, "all-linear"), Seed: 3, Precision: kernel.BF16}
	a := curve(t, trainer(t, cfg, ad), 12)
	b := curve(t, reference(t, cfg, ad, kernel.BF16), 12)
	for i := range a {
		if !(math.Abs(a[i]-b[i]) <= 1e-2) {
			t.Errorf("step %d: loss %.4f, the CPU engine has %.4f", i, a[i], b[i])
		}
	}
	if t.Logf("loss %.4f to %.4f", a[0], a[len(a)-1]); a[len(a)-1] > 0.8*a[0] {
		t.Error("it hardly learns, which proves little")
	}
}

func curve(t *testing.T, m engine.Trainer, steps int) (losses []float64) {
	p, rule := m.Params(), optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}
	g, m1, m2 := make([]float32, len(p)), make([]float32, len(p)), make([]float32, len(p))
	n := float64(batches[0].Labelled())
	for i := range steps {
		loss := must(m.Gradient(batches[0], float32(1/n), engine.Key{Step: uint32(i)}, g))(t)
		losses = append(losses, loss/n)
		rule.Step(p, g, m1, m2, 4e-3, i+1)
		m.Changed()
	}
	return losses
}
