package export_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/export"
	"lorad/model"
	"lorad/model/peft"
	"lorad/model/safetensors"
)

// recorded is a variant of scripts/oracle/llama_grads.py: a base and an adapter that transformers and PEFT have run.
type recorded struct {
	file    *safetensors.File
	Tokens  [][]int32
	Config  json.RawMessage
	Adapter json.RawMessage
}

func load(t *testing.T, name string) recorded {
	t.Helper()
	dir := filepath.Join("..", "engine", "llama", "testdata")
	text, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var r recorded
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if r.file, err = safetensors.OpenFS(os.DirFS(dir), name+".safetensors"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.file.Close() })
	return r
}

func (r recorded) tensors(t *testing.T, prefix string) []safetensors.Tensor {
	t.Helper()
	var out []safetensors.Tensor
	for _, name := range r.file.Names() {
		if short, ok := strings.CutPrefix(name, prefix); ok {
			data, shape, err := r.file.F32(name)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, safetensors.Tensor{Name: short, Shape: shape, Data: data})
		}
	}
	return out
}

func folder(t *testing.T, weights string, tensors []safetensors.Tensor, config string, text []byte) fstest.MapFS {
	t.Helper()
	var b bytes.Buffer
	if err := safetensors.Write(&b, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{weights: {Data: b.Bytes()}, config: {Data: text}}
}

func (r recorded) base(t *testing.T) fstest.MapFS {
	return folder(t, "model.safetensors", r.tensors(t, "weights/"), "config.json", r.Config)
}

func (r recorded) adapter(t *testing.T) fstest.MapFS {
	return folder(t, "adapter_model.safetensors", r.tensors(t, "adapter/"), "adapter_config.json", r.Adapter)
}

func open(t *testing.T, base, adapter fs.FS) (*export.Adapter, *model.Folder) {
	t.Helper()
	f, err := model.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	a, err := export.Open(f, adapter, kernel.NewRef[float32]())
	if err != nil {
		t.Fatal(err)
	}
	return a, f
}

func logits(t *testing.T, base fs.FS, ad llama.Adapter, tokens []int32) []float32 {
	t.Helper()
	f, err := model.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := llama.New(f.Config(), f, ad, kernel.NewRef[float32]())
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Logits(tokens)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// distance is the largest difference over the largest value.
func distance(got, want []float32) float64 {
	var d, top float64
	for i, w := range want {
		d, top = max(d, math.Abs(float64(got[i]-w))), max(top, math.Abs(float64(w)))
	}
	return d / top
}

// TestOracleMerge: the merged model of every family answers as PEFT's unmerged one did; in 16 bits its weights are those, rounded once.
func TestOracleMerge(t *testing.T) {
	for _, name := range []string{"tied", "llama3", "mistral", "qwen2", "qwen3", "phi3", "gemma3"} {
		r := load(t, name)
		want := r.tensors(t, "adapter_logits")[0].Data
		exact, report := r.merge(t, safetensors.F32)
		if d := distance(logits(t, exact, llama.Adapter{}, r.Tokens[0]), want); !(d < 1e-5) || report.Rounding != 0 || report.Modules < 6 {
			t.Errorf("%s: logits differ by %.2g of the largest; %+v", name, d, report)
		}
		for _, dtype := range []safetensors.DType{safetensors.F16, safetensors.BF16} {
			rounded, report := r.merge(t, dtype)
			if !(report.Rounding > 0 && report.Rounding < 0.05) {
				t.Errorf("%s in %s: %+v", name, dtype, report)
			}
			sameRounded(t, rounded, exact, dtype)
		}
	}
}

// TestOracleMergeLoRAFamily: so do adapters of LoRA's relatives, with magnitudes, ranks by module, biases and whole modules.
func TestOracleMergeLoRAFamily(t *testing.T) {
	family := filepath.Join("..", "engine", "llama", "testdata", "family")
	want, err := safetensors.OpenFS(os.DirFS(family), "recorded.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	var facts struct{ Tokens [][]int32 }
	text, err := os.ReadFile(filepath.Join(family, "recorded.json"))
	if err == nil {
		err = json.Unmarshal(text, &facts)
	}
	if err != nil {
		t.Fatal(err)
	}
	base := load(t, "llama3").base(t)
	for _, name := range []string{"patterns", "rslora", "dora", "bias", "saved"} {
		a, f := open(t, base, os.DirFS(filepath.Join(family, name)))
		dir := t.TempDir()
		if _, err := a.Merge(dir, base, safetensors.F32, nil); err != nil {
			t.Fatal(err)
		}
		f.Close()
		logit, _, err := want.F32(name + "/logits")
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(logits(t, os.DirFS(dir), llama.Adapter{}, facts.Tokens[0]), logit); !(d < 1e-5) {
			t.Errorf("%s: logits differ by %.2g of the largest", name, d)
		}
	}
}

func (r recorded) merge(t *testing.T, dtype safetensors.DType) (fs.FS, export.Report) {
	t.Helper()
	base := r.base(t)
	a, f := open(t, base, r.adapter(t))
	defer f.Close()
	dir := filepath.Join(t.TempDir(), "merged")
	report, err := a.Merge(dir, base, dtype, nil)
	if err != nil {
		t.Fatal(err)
	}
	return os.DirFS(dir), report
}

func sameRounded(t *testing.T, got, exact fs.FS, dtype safetensors.DType) {
	t.Helper()
	g, err := model.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	e, err := model.Open(exact)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, s := range e.Config().Tensors() {
		x, _, err := g.Tensor(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		y, _, err := e.Tensor(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range y {
			if x[i] != safetensors.Round(y[i], dtype) {
				t.Fatalf("%s[%d] in %s is %v, want %v rounded", s.Name, i, dtype, x[i], y[i])
			}
		}
	}
}

// TestTiedHeadsAreUntied: an adapter on lm_head must not change the embedding.
func TestTiedHeadsAreUntied(t *testing.T) {
	r := load(t, "tied")
	base := r.base(t)
	cfg := peft.LoraConfig{R: 2, Alpha: 4, TargetModules: []string{"lm_head"}}
	a, b := make([]float32, 2*32), make([]float32, 97*2)
	for i := range a {
		a[i] = float32(i%5) * 0.1
	}
	for i := range b {
		b[i] = float32(i%7) * 0.1
	}
	nameA, nameB := peft.Names("lm_head")
	dir := t.TempDir()
	if err := peft.Write(dir, cfg, []safetensors.Tensor{{Name: nameA, Shape: []int{2, 32}, Data: a}, {Name: nameB, Shape: []int{97, 2}, Data: b}}); err != nil {
		t.Fatal(err)
	}
	ad, f := open(t, base, os.DirFS(dir))
	defer f.Close()
	out := filepath.Join(t.TempDir(), "merged")
	report, err := ad.Merge(out, base, safetensors.F32, nil)
	if err != nil || !report.Untied {
		t.Fatalf("%+v, %v", report, err)
	}
	want := logits(t, base, llama.Adapter{LoRA: &cfg, Init: map[string][]float32{nameA: a, nameB: b}}, r.Tokens[0])
	if d := distance(logits(t, os.DirFS(out), llama.Adapter{}, r.Tokens[0]), want); !(d < 1e-5) {
		t.Errorf("logits differ by %.2g", d)
	}
}

func TestQuantisedTrainingIsSaid(t *testing.T) {
	r := load(t, "llama3")
	base := r.base(t)
	for _, form := range []string{export.NF4, export.NF4Nested} {
		q, err := export.Provenance{FourBit: form}.Quantiser()
		if err != nil {
			t.Fatal(err)
		}
		a, f := open(t, base, r.adapter(t))
		report, err := a.Merge(filepath.Join(t.TempDir(), "m"), base, "", q)
		f.Close()
		if err != nil || report.DType != "BF16" || !(report.Quantised > 0.05 && report.Quantised < 2) {
			t.Errorf("%s: %+v, %v", form, report, err)
		}
	}
	if _, err := (export.Provenance{FourBit: "fp4"}).Quantiser(); err == nil {
		t.Error("fp4 was taken")
	}
}

// TestFingerprintIsOfTheWeights: not of how they are cut into files.
func TestFingerprintIsOfTheWeights(t *testing.T) {
	r := load(t, "tied")
	all := r.tensors(t, "weights/")
	one := r.base(t)
	two := fstest.MapFS{"config.json": {Data: r.Config}}
	index := map[string]any{"weight_map": map[string]string{}}
	for i, part := range [][]safetensors.Tensor{all[:5], all[5:]} {
		name := []string{"a.safetensors", "b.safetensors"}[i]
		two[name] = folder(t, name, part, "x", nil)[name]
		for _, x := range part {
			index["weight_map"].(map[string]string)[x.Name] = name
		}
	}
	text, _ := json.Marshal(index)
	two["model.safetensors.index.json"] = &fstest.MapFile{Data: text}
	var prints [][32]byte
	all[3].Data[0]++
	for _, dir := range []fs.FS{one, two, r.base(t), folder(t, "model.safetensors", all, "config.json", r.Config)} {
		f, err := model.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		p, err := f.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		prints = append(prints, p)
		f.Close()
	}
	if prints[0] != prints[1] || prints[0] != prints[2] || prints[0] == prints[3] {
		t.Errorf("%x", prints)
	}
}

func TestAdaptersOfOtherModelsAreRefused(t *testing.T) {
	base, err := model.Open(load(t, "tied").base(t))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	for name, want := range map[string]string{"qwen2": "made for", "phi3": "does not have"} {
		_, err := export.Open(base, load(t, name).adapter(t), kernel.NewRef[float32]())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
