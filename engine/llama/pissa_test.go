package llama_test

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/engine/optim"
	"lorad/model/peft"
	"lorad/model/safetensors"
)

// pissaRun is what scripts/oracle/peft_pissa.py wrote, on the base of the variant llama3.
type pissaRun struct {
	recorded
	Losses []float64
	Niter  map[string]float64 // ||W - s*B A|| of pissa_niter_4
}

func loadPiSSA(t *testing.T) (*pissaRun, *recorded) {
	t.Helper()
	base, f := load(t, "llama3"), new(pissaRun)
	text, err := os.ReadFile("testdata/pissa/recorded.json")
	if err == nil {
		err = json.Unmarshal(text, f)
	}
	if err != nil || len(f.Losses) != 10 || len(f.Niter) != 14 {
		t.Fatal(err, f.Losses, f.Niter)
	}
	f.file = openRecorded(t, "testdata/pissa/recorded.safetensors")
	return f, base
}

func pissaAdapter(init string) llama.Adapter {
	return llama.Adapter{LoRA: &peft.LoraConfig{R: 4, Alpha: 6, TargetModules: []string{"all-linear"}, Init: init}, Seed: 3}
}

// eachProduct visits B A of every module.
func eachProduct(m *llama.Model[float32], visit func(module string, product []float32)) {
	params := map[string][]float32{}
	shapes := map[string][]int{}
	for _, l := range m.Layout() {
		params[l.Name], shapes[l.Name] = m.Params()[l.Offset:l.Offset+l.Len()], l.Shape
	}
	for name, a := range params {
		module, isB, ok := peft.Module(name)
		if isB || !ok {
			continue
		}
		_, nameB := peft.Names(module)
		r, in, out := shapes[name][0], shapes[name][1], shapes[nameB][0]
		product := make([]float32, out*in)
		kernel.NewRef[float32]().Gemm(false, false, out, in, r, params[nameB], r, a, in, product, in, false)
		visit(module, product)
	}
}

// TestOraclePiSSA starts where PEFT's pissa starts, computes what the base does, follows PEFT's losses, and ends, converted, as an adapter of the
// original base with the logits of PEFT's.
func TestOraclePiSSA(t *testing.T) {
	f, base := loadPiSSA(t)
	cfg, _ := base.model(t)
	m := mustNew(t, cfg, base, pissaAdapter("pissa"), cpu.New(2))
	worst := 0.0
	eachProduct(m, func(module string, got []float32) {
		if e := distance(got, f.tensor(t, "product/"+module)); !(e < 1e-4) {
			t.Errorf("%s: B A is apart by %.2g of its norm", module, e)
		} else {
			worst = max(worst, e)
		}
	})
	t.Logf("products B A within %.2g", worst)
	plain := mustNew(t, cfg, base, llama.Adapter{}, cpu.New(2))
	if e := largest(logitsOf(t, m, f.Tokens[0]), logitsOf(t, plain, f.Tokens[0])); e > 2e-6 {
		t.Errorf("before training, logits differ from the base's by %.2g of the largest", e)
	}
	follow(t, m, f.batch(), f.Losses)

	c, tensors := subtracted(t, m, *pissaAdapter("pissa").LoRA)
	ad := llama.Adapter{LoRA: &c, Init: tensors}
	logits := logitsOf(t, mustNew(t, cfg, base, ad, cpu.New(2)), f.Tokens[0])
	if e := largest(logits, logitsOf(t, m, f.Tokens[0])); e > 1e-5 {
		t.Errorf("the converted adapter's logits differ from the trained model's by %.2g of the largest", e)
	}
	if e := largest(logits, f.tensor(t, "logits")); e > 1e-3 {
		t.Errorf("the converted adapter's logits differ from PEFT's by %.2g of the largest", e)
	} else {
		t.Logf("logits of the converted adapter within %.2g of the largest", e)
	}
}

func logitsOf(t *testing.T, m *llama.Model[float32], tokens []int32) []float32 {
	t.Helper()
	logits, err := m.Logits(tokens)
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

// follow takes ten steps of AdamW and compares their losses.
func follow(t *testing.T, m *llama.Model[float32], b engine.Batch, want []float64) {
	t.Helper()
	o := optim.NewPlain(optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}, []optim.Part{{Len: len(m.Params()), Rate: 1}})
	g, n, worst := make([]float32, len(m.Params())), float64(b.Labelled()), 0.0
	for i := range want {
		sum, err := m.Gradient(b, float32(1/n), engine.Key{}, g)
		if err != nil {
			t.Fatal(err)
		}
		if got := sum / n; !(math.Abs(got-want[i]) < 1e-4*want[i]) {
			t.Errorf("step %d: loss per token %.6f, PEFT has %.6f", i, got, want[i])
		}
		worst = max(worst, math.Abs(sum/n-want[i])/want[i])
		o.Step(m.Params(), g, 2e-3, i+1)
		m.Changed()
	}
	t.Logf("losses within %.2g", worst)
}

// subtracted is the trained adapter as one of the original base.
func subtracted(t *testing.T, m *llama.Model[float32], c peft.LoraConfig) (peft.LoraConfig, map[string][]float32) {
	t.Helper()
	var trained []safetensors.Tensor
	var initial [][]float32
	for _, l := range m.Layout() {
		trained = append(trained, safetensors.Tensor{Name: l.Name, Shape: l.Shape, Data: m.Params()[l.Offset : l.Offset+l.Len()]})
		initial = append(initial, m.Initial()[l.Offset:l.Offset+l.Len()])
	}
	c, trained, err := peft.Subtract(c, trained, initial)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]float32{}
	for _, s := range trained {
		out[s.Name] = s.Data
	}
	return c, out
}

// TestOraclePiSSAFast: four rounds take as much out of the weights as PEFT's pissa_niter_4, whose random draws are torch's.
func TestOraclePiSSAFast(t *testing.T) {
	f, base := loadPiSSA(t)
	cfg, _ := base.model(t)
	m := mustNew(t, cfg, base, pissaAdapter("pissa_niter_4"), cpu.New(2))
	eachProduct(m, func(module string, product []float32) {
		w := base.tensor(t, "weights/"+module+".weight")
		sum := 0.0
		for i, v := range w {
			d := float64(v) - 1.5*float64(product[i])
			sum += d * d
		}
		if got, want := math.Sqrt(sum), f.Niter[module]; got > 1.001*want {
			t.Errorf("%s: what is left of the weight is %.6g, in PEFT %.6g", module, got, want)
		}
	})
}

// The number of threads changes nothing, and another run draws the same.
func TestPiSSABitsDoNotDependOnThreads(t *testing.T) {
	_, base := loadPiSSA(t)
	cfg, _ := base.model(t)
	one := mustNew(t, cfg, base, pissaAdapter("pissa_niter_2"), cpu.New(1))
	four := mustNew(t, cfg, base, pissaAdapter("pissa_niter_2"), cpu.New(4))
	for i, v := range one.Params() {
		if four.Params()[i] != v {
			t.Fatalf("parameter %d is %v with one thread, %v with four", i, v, four.Params()[i])
		}
	}
}

func TestPiSSAIsRefusedWhereItWouldChangeMore(t *testing.T) {
	cfg, _ := load(t, "tied").model(t)
	head := llama.Adapter{LoRA: &peft.LoraConfig{R: 4, Alpha: 6, TargetModules: []string{"lm_head"}, Init: "pissa"}}
	four := pissaAdapter("pissa")
	four.FourBit = &llama.FourBit{}
	dora := pissaAdapter("pissa_niter_4")
	dora.LoRA.UseDoRA = true
	other := pissaAdapter("olora")
	for want, ad := range map[string]llama.Adapter{"lm_head": head, "4 bits": four, "use_dora": dora, "pissa_niter_4": other} {
		if _, err := llama.New(cfg, load(t, "tied"), ad, cpu.New(1)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

// BenchmarkPiSSA makes one layer of TinyLlama's shape with random weights, whose singular values lie as close together as they ever do, with and
// without PiSSA.
func BenchmarkPiSSA(b *testing.B) {
	cfg := tinyLlama()
	cfg.NumLayers, cfg.VocabSize = 1, 32
	for _, init := range []string{"", "pissa_niter_4", "pissa"} {
		b.Run("init="+init, func(b *testing.B) {
			ad := llama.Adapter{LoRA: &peft.LoraConfig{R: 16, Alpha: 32, TargetModules: []string{"all-linear"}, Init: init}}
			start := cpuTime()
			for b.Loop() {
				if _, err := llama.New(cfg, newNoise(cfg), ad, cpu.New(1)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpuTime()-start).Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}
