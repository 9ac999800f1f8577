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

const familyDir = "testdata/family"

// family is what scripts/oracle/peft_family.py wrote, on the base of the variant llama3.
type family struct {
	recorded
	Losses map[string]float64 `json:"losses"`
}

func loadFamily(t *testing.T) (*family, *recorded) {
	t.Helper()
	base, f := load(t, "llama3"), new(family)
	text, err := os.ReadFile(familyDir + "/recorded.json")
	if err == nil {
		err = json.Unmarshal(text, f)
	}
	if err != nil || len(f.Losses) < 6 {
		t.Fatal(err, f.Losses)
	}
	f.file = openRecorded(t, familyDir+"/recorded.safetensors")
	return f, base
}

// adapter is one of the folders that PEFT saved.
func readAdapter(t *testing.T, dir string) llama.Adapter {
	t.Helper()
	c, tensors, err := peft.Read(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	ad := llama.Adapter{LoRA: &c, Init: map[string][]float32{}}
	for name, tensor := range tensors {
		ad.Init[name] = tensor.Data
	}
	return ad
}

// gradNames gives gradients the names that the adapter's tensors have in files.
type gradNames struct {
	*safetensors.File
	prefix string
}

func (g gradNames) gradient(t *testing.T, name string) []float32 {
	t.Helper()
	for _, n := range g.Names() {
		rest, ok := strings.CutPrefix(n, g.prefix)
		rest = strings.Replace(strings.Replace(rest, ".modules_to_save.default", "", 1), ".default", "", 1)
		if strings.HasSuffix(rest, "lora_magnitude_vector.weight") {
			rest = strings.TrimSuffix(rest, ".weight")
		}
		if ok && rest == name {
			x, _, err := g.F32(n)
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
	}
	t.Fatalf("PEFT has no gradient of %s", name)
	return nil
}

// Adapters that PEFT saved, with rank and alpha patterns, exclusions, rank-stabilised scaling, magnitudes, biases and whole modules, have
// PEFT's logits, loss and gradients here.
func TestOracleLoRAFamily(t *testing.T) {
	f, base := loadFamily(t)
	cfg, _ := base.model(t)
	for name, loss := range f.Losses {
		ad := readAdapter(t, filepath.Join(familyDir, name))
		t.Run(name, func(t *testing.T) {
			familyIn(t, f, base, cfg, ad, kernel.NewRef[float64](), name, loss)
			familyIn(t, f, base, cfg, ad, cpu.New(2), name, loss)
		})
	}
}

func familyIn[T kernel.Float](t *testing.T, f *family, base *recorded, cfg model.Config, ad llama.Adapter, ops kernel.Ops[T], name string, loss float64) {
	t.Helper()
	m, err := llama.New(cfg, base, ad, ops)
	if err != nil {
		t.Fatal(err)
	}
	logits, err := m.Logits(f.Tokens[0])
	if err != nil || largest(logits, f.tensor(t, name+"/logits")) > 1e-5 {
		t.Errorf("%v; logits differ by %.2g of the largest", err, largest(logits, f.tensor(t, name+"/logits")))
	}
	grad := make([]T, len(m.Params()))
	sum, err := m.Gradient(f.batch(), 1, engine.Key{}, grad)
	if err != nil || math.Abs(sum-loss) > 1e-5*loss {
		t.Errorf("%v, loss %v, want %v", err, sum, loss)
	}
	names := gradNames{f.file, name + "/grad/"}
	if got, want := len(m.Layout()), f.count(names.prefix); got != want {
		t.Errorf("%d trainable tensors, PEFT has %d", got, want)
	}
	for _, w := range m.Layout() {
		if e := distance(grad[w.Offset:w.Offset+w.Len()], names.gradient(t, w.Name)); !(e < 5e-5) {
			t.Errorf("%s: ||got-want||/||want|| = %.2g", w.Name, e)
		}
	}
}

// TestOracleLoRAPlus follows ten steps of PEFT's create_loraplus_optimizer.
func TestOracleLoRAPlus(t *testing.T) {
	f, base := loadFamily(t)
	cfg, _ := base.model(t)
	m := mustNew(t, cfg, base, readAdapter(t, filepath.Join(familyDir, "loraplus")), cpu.New(2))
	var parts []optim.Part
	for _, l := range m.Layout() {
		p := optim.Part{Len: l.Len(), Rate: 1}
		if strings.HasSuffix(l.Name, ".lora_B.weight") {
			p.Rate = 16
		}
		parts = append(parts, p)
	}
	o := optim.NewPlain(optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}, parts)
	b, g := f.batch(), make([]float32, len(m.Params()))
	n := float64(b.Labelled())
	for i, want := range f.Curve {
		sum, err := m.Gradient(b, float32(1/n), engine.Key{}, g)
		if err != nil {
			t.Fatal(err)
		}
		if got := sum / n; math.Abs(got-want) > 1e-4*want {
			t.Errorf("step %d: loss per token %.6f, PEFT has %.6f", i, got, want)
		}
		o.Step(m.Params(), g, 2e-3, i+1)
		m.Changed()
	}
}

// A new DoRA is the base: magnitudes start as the norms of the weight's rows. Written and read again, it is what it was.
func TestDoRAStartsAsTheBase(t *testing.T) {
	base := load(t, "llama3")
	cfg, _ := base.model(t)
	dora := llama.Adapter{LoRA: &peft.LoraConfig{R: 4, Alpha: 8, UseDoRA: true, TargetModules: []string{"all-linear"}}, Seed: 1}
	a, b := mustNew(t, cfg, base, llama.Adapter{}, cpu.New(1)), mustNew(t, cfg, base, dora, cpu.New(1))
	want, err := a.Logits(base.Tokens[0])
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Logits(base.Tokens[0])
	if err != nil || largest(got, want) > 1e-6 {
		t.Errorf("%v; logits differ by %.2g of the largest", err, largest(got, want))
	}
}

func TestFamilyRefusals(t *testing.T) {
	base := load(t, "llama3")
	untied, _ := base.model(t)
	tied := untied
	tied.TieEmbeddings = true
	with := func(saved ...string) *peft.LoraConfig {
		return &peft.LoraConfig{R: 4, Alpha: 8, TargetModules: []string{"q_proj"}, ModulesToSave: saved}
	}
	for want, c := range map[string]struct {
		cfg  model.Config
		lora *peft.LoraConfig
	}{
		"would train a copy":      {tied, with("lm_head")},
		"mlp is no embedding":     {untied, with("lm_head", "layers.0.mlp")},
		"match no linear layer":   {untied, with("q_proj")},
		"layer_norm is no embedd": {untied, with("layer_norm")},
	} {
		if _, err := llama.New(c.cfg, base, llama.Adapter{LoRA: c.lora}, cpu.New(1)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
