package llama_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/engine/optim"
	"lorad/model"
	"lorad/model/peft"
	"lorad/model/safetensors"
)

// recorded is what scripts/oracle/llama_grads.py wrote for one variant.
type recorded struct {
	file   *safetensors.File
	Tokens [][]int32 `json:"tokens"`
	Labels [][]int32 `json:"labels"`
	Loss   float64   `json:"loss"`
	LoRA   float64   `json:"adapter_loss"`
	Curve  []float64 `json:"curve"`

	Config  json.RawMessage `json:"config"`  // config.json
	Adapter json.RawMessage `json:"adapter"` // adapter_config.json
}

// Tensor makes the recorded weights a llama.Weights.
func (r *recorded) Tensor(name string) ([]float32, []int, error) {
	return r.file.F32("weights/" + name)
}

func load(t *testing.T, name string) *recorded {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	r := new(recorded)
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	r.file = openRecorded(t, "testdata/"+name+".safetensors")
	return r
}

func openRecorded(t *testing.T, path string) *safetensors.File {
	t.Helper()
	f, err := safetensors.OpenFS(os.DirFS(filepath.Dir(path)), filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (r *recorded) tensor(t *testing.T, name string) []float32 {
	t.Helper()
	x, _, err := r.file.F32(name)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (r *recorded) count(prefix string) int {
	n := 0
	for _, name := range r.file.Names() {
		if strings.HasPrefix(name, prefix) {
			n++
		}
	}
	return n
}

// adapter is the recorded adapter's values by PEFT name.
func (r *recorded) adapter(t *testing.T) map[string][]float32 {
	t.Helper()
	init := map[string][]float32{}
	for _, name := range r.file.Names() {
		if peftName, ok := strings.CutPrefix(name, "adapter/"); ok {
			init[peftName] = r.tensor(t, name)
		}
	}
	return init
}

// batch is all recorded sequences, packed.
func (r *recorded) batch() engine.Batch {
	b := engine.Batch{Starts: []int32{0}}
	for i := range r.Tokens {
		b.Tokens, b.Labels = append(b.Tokens, r.Tokens[i]...), append(b.Labels, r.Labels[i]...)
		b.Starts = append(b.Starts, int32(len(b.Tokens)))
	}
	return b
}

// model is the recorded configurations, as a folder's are read.
func (r *recorded) model(t *testing.T) (model.Config, *peft.LoraConfig) {
	t.Helper()
	c, err := model.ReadConfig(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	lc, err := peft.ParseConfig(r.Adapter)
	if err != nil {
		t.Fatal(err)
	}
	return c, &lc
}

// families are the variants of scripts/oracle/llama_grads.py: every architecture, with what it has and others have not.
var families = []string{"tied", "llama3", "mistral", "qwen2", "qwen2-window", "qwen3", "phi3", "phi3-long", "phi4", "gemma2", "gemma3"}

func TestOracleFamilies(t *testing.T) {
	for _, name := range families {
		r := load(t, name)
		cfg, lc := r.model(t)
		t.Run(name+"/full", func(t *testing.T) {
			r.compare(t, cfg, llama.Adapter{Full: true}, "logits", "full_grad/", r.Loss)
		})
		t.Run(name+"/lora", func(t *testing.T) {
			r.compare(t, cfg, llama.Adapter{LoRA: lc, Init: r.adapter(t)}, "adapter_logits", "adapter_grad/", r.LoRA)
		})
	}
}

// compare holds float32 to the recording, and float64 too: what remains there is the recording's own rounding.
func (r *recorded) compare(t *testing.T, cfg model.Config, ad llama.Adapter, logits, grads string, loss float64) {
	compareIn(t, r, cfg, ad, kernel.NewRef[float32](), logits, grads, loss)
	compareIn(t, r, cfg, ad, kernel.NewRef[float64](), logits, grads, loss)
}

func compareIn[T kernel.Float](t *testing.T, r *recorded, cfg model.Config, ad llama.Adapter, ops kernel.Ops[T], logits, grads string, loss float64) {
	t.Helper()
	compareFrom(t, r, r, cfg, ad, ops, logits, grads, loss)
}

func compareFrom[T kernel.Float](t *testing.T, r *recorded, w llama.Weights, cfg model.Config, ad llama.Adapter, ops kernel.Ops[T], logits, grads string, loss float64) {
	t.Helper()
	m, err := llama.New(cfg, w, ad, ops)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Logits(r.Tokens[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := r.tensor(t, logits); len(got) != len(want) || distance(got, want) > 1e-5 || largest(got, want) > 1e-4 {
		t.Errorf("%s: ||got-want||/||want|| = %.2g, largest difference/largest logit = %.2g", logits, distance(got, want), largest(got, want))
	}
	apart, worst := largest(got, r.tensor(t, logits)), 0.0
	defer func() { t.Logf("%T: logits within %.2g of the largest, gradients within %.2g", ops, apart, worst) }()
	grad := make([]T, len(m.Params()))
	sum, err := m.Gradient(r.batch(), 1, engine.Key{}, grad)
	if err != nil || math.Abs(sum-loss) > 1e-5*loss {
		t.Errorf("loss %v, %v, want %v", sum, err, loss)
	}
	if eval, err := m.Loss(r.batch()); err != nil || eval != sum {
		t.Errorf("Loss %v, %v, but Gradient said %v", eval, err, sum)
	}
	if want := r.count(grads); len(m.Layout()) != want {
		t.Errorf("%d trainable tensors, want %d", len(m.Layout()), want)
	}
	for _, w := range m.Layout() {
		e := distance(grad[w.Offset:w.Offset+w.Len()], r.tensor(t, grads+w.Name))
		if worst = max(worst, e); !(e < 1e-4) {
			t.Errorf("%s%s: ||got-want||/||want|| = %.2g, want less than 1e-4", grads, w.Name, e)
		}
	}
}

// TestLossCurve trains the recorded adapter with our AdamW and follows the losses of torch's, step by step.
func TestOracleLossCurve(t *testing.T) {
	worst := 0.0
	defer func() { t.Logf("losses within %.2g", worst) }()
	for _, name := range families {
		r := load(t, name)
		cfg, lc := r.model(t)
		m := mustNew(t, cfg, r, llama.Adapter{LoRA: lc, Init: r.adapter(t)}, cpu.New(2))
		b, p := r.batch(), m.Params()
		g, m1, m2 := make([]float32, len(p)), make([]float32, len(p)), make([]float32, len(p))
		adamw := optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}
		n := float64(b.Labelled())
		for i, want := range r.Curve {
			sum, err := m.Gradient(b, float32(1/n), engine.Key{}, g)
			if err != nil {
				t.Fatal(err)
			}
			if got := sum / n; math.Abs(got-want) > 1e-4*want {
				t.Errorf("%s, step %d: loss per token %.6f, torch has %.6f", name, i, got, want)
			}
			worst = max(worst, math.Abs(sum/n-want)/want)
			adamw.Step(p, g, m1, m2, 2e-3, i+1)
			m.Changed()
		}
	}
}

func distance[T kernel.Float](got []T, want []float32) float64 {
	var diff, norm float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		diff, norm = diff+d*d, norm+float64(w)*float64(w)
	}
	return math.Sqrt(diff / norm)
}

func largest[T kernel.Float](got []T, want []float32) float64 {
	var diff, top float64
	for i, w := range want {
		diff, top = max(diff, math.Abs(float64(got[i])-float64(w))), max(top, math.Abs(float64(w)))
	}
	return diff / top
}
