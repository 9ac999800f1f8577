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
	"lorad/model"
	"lorad/model/peft"
)

const qloraDir = "testdata/qlora"

// qlora is what scripts/oracle/llama_qlora.py wrote: losses by name of the quantisation.
func qlora(t *testing.T) (*recorded, map[string]float64) {
	t.Helper()
	text, err := os.ReadFile(qloraDir + "/recorded.json")
	if err != nil {
		t.Fatal(err)
	}
	var losses struct {
		NF4    float64 `json:"nf4.loss"`
		Nested float64 `json:"nested.loss"`
	}
	r := &recorded{file: openRecorded(t, qloraDir+"/recorded.safetensors")}
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &losses); err != nil {
		t.Fatal(err)
	}
	return r, map[string]float64{"nf4": losses.NF4, "nested": losses.Nested}
}

func folder(t *testing.T, dir string) *model.Folder {
	t.Helper()
	f, err := model.Open(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A base that lorad quantises while it loads, and one that transformers quantised and saved, train as transformers, PEFT and bitsandbytes
// train them: logits with and without an adapter, loss, gradients.
func TestOracleQLoRA(t *testing.T) {
	r, losses := qlora(t)
	for _, name := range []string{"nf4", "nested"} {
		lc := &peft.LoraConfig{R: 4, Alpha: 6, TargetModules: []string{"all-linear"}}
		for from, ad := range map[string]llama.Adapter{
			"base": {LoRA: lc, Init: r.adapter(t), FourBit: &llama.FourBit{Nested: name == "nested"}},
			name:   {LoRA: lc, Init: r.adapter(t)},
		} {
			f := folder(t, qloraDir+"/"+from)
			t.Run(name+"/"+from, func(t *testing.T) {
				compareFrom(t, r, f, f.Config(), ad, kernel.NewRef[float64](), name+"/adapter_logits", name+"/grad/", losses[name])
				compareFrom(t, r, f, f.Config(), ad, cpu.New(2), name+"/adapter_logits", name+"/grad/", losses[name])
				ad.LoRA, ad.Init = nil, nil
				bare, err := llama.New(f.Config(), f, ad, cpu.New(1))
				if err != nil {
					t.Fatal(err)
				}
				logits, err := bare.Logits(r.Tokens[0])
				if err != nil || largest(logits, r.tensor(t, name+"/logits")) > 1e-5 {
					t.Errorf("%v; logits without an adapter differ by %.2g of the largest", err, largest(logits, r.tensor(t, name+"/logits")))
				}
			})
		}
	}
}

// What is kept in 4 and in 16 bits takes that much memory; the recorded folder and the one quantised here hold the same bytes.
func TestQLoRAMemory(t *testing.T) {
	r, _ := qlora(t)
	_ = r
	const linear, table = 2 * (2*64*64 + 2*32*64 + 3*64*128), 2 * 97 * 64
	for name, ad := range map[string]llama.Adapter{
		"base":   {FourBit: &llama.FourBit{}},
		"nf4":    {},
		"nested": {},
	} {
		f := folder(t, qloraDir+"/"+name)
		m, err := llama.New(f.Config(), f, ad, cpu.New(1))
		if err != nil {
			t.Fatal(err)
		}
		want := linear/2 + linear/64*4 + 2*table
		if name == "nested" {
			want = linear/2 + linear/64 + 14*(4*257) + 4*14 + 2*table
		}
		if got := m.BaseBytes(); got != int64(want+5*64*4) {
			t.Errorf("%s: %d bytes, want %d", name, got, want+5*64*4)
		}
	}
}

func TestQLoRARefuses(t *testing.T) {
	base, packed := folder(t, qloraDir+"/base"), folder(t, qloraDir+"/nf4")
	wrong := packed.Config()
	wrong.IntermediateSize, wrong.HiddenSize = 64, 128
	for want, c := range map[string]struct {
		cfg model.Config
		w   llama.Weights
		ad  llama.Adapter
	}{
		"cannot all be trained": {packed.Config(), packed, llama.Adapter{Full: true}},
		"use LoRA":              {base.Config(), base, llama.Adapter{Full: true, FourBit: &llama.FourBit{}}},
		"open a model folder":   {base.Config(), onlyTensors{base}, llama.Adapter{FourBit: &llama.FourBit{}}},
		"does not fit config":   {wrong, packed, llama.Adapter{}},
	} {
		if _, err := llama.New(c.cfg, c.w, c.ad, cpu.New(1)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

type onlyTensors struct{ f *model.Folder }

func (o onlyTensors) Tensor(name string) ([]float32, []int, error) { return o.f.Tensor(name) }

// Quantising, and the products of a quantised weight, do not depend on the number of threads.
func TestQLoRABitsOnAnyThreads(t *testing.T) {
	r, _ := qlora(t)
	f := folder(t, qloraDir+"/base")
	var first []float32
	for _, threads := range []int{1, 2, 5} {
		ad := llama.Adapter{LoRA: allLinear(0.1), Seed: 3, FourBit: &llama.FourBit{Nested: true}}
		m, err := llama.New(f.Config(), f, ad, cpu.New(threads))
		if err != nil {
			t.Fatal(err)
		}
		g := make([]float32, len(m.Params()))
		if _, err := m.Gradient(r.batch(), 1, engine.Key{Seed: 1}, g); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = g
		}
		for i := range g {
			if math.Float32bits(g[i]) != math.Float32bits(first[i]) {
				t.Fatalf("%d threads: gradient %d differs", threads, i)
			}
		}
	}
}
