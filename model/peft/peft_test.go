package peft_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lorad/model/peft"
	"lorad/model/safetensors"
)

// matches is what PEFT does with a tiny Llama, per way of naming target modules.
type matches struct {
	Linear []string
	Cases  map[string]struct {
		Target json.RawMessage `json:"target_modules"`
		Keys   map[string][]int
	}
}

func readMatches(t *testing.T) matches {
	t.Helper()
	var m matches
	data, err := os.ReadFile("testdata/matches.json")
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil || len(m.Cases) != 5 {
		t.Fatal(err, len(m.Cases))
	}
	return m
}

func TestMatchAdaptsWhatPEFTAdapts(t *testing.T) {
	m := readMatches(t)
	for name, c := range m.Cases {
		config, err := peft.ParseConfig([]byte(`{"peft_type": "LORA", "r": 4, "target_modules": ` + string(c.Target) + `}`))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []string
		for _, module := range m.Linear {
			if config.Match(module) {
				a, b := peft.Names(module)
				got = append(got, a, b)
			}
		}
		slices.Sort(got)
		delete(c.Keys, "base_model.model.lm_head.base_layer.weight") // PEFT saves a copy of the frozen head beside its adapter
		if want := slices.Sorted(maps.Keys(c.Keys)); !slices.Equal(got, want) {
			t.Errorf("%s: adapts\n%v, PEFT\n%v", name, got, want)
		}
	}
}

// What PEFT wrote is read, and written again as the same bytes (PEFT writes its set of modules in any order).
func TestFoldersOfPEFTComeOutAgain(t *testing.T) {
	c, tensors, err := peft.Read(os.DirFS("testdata/list"))
	if err != nil {
		t.Fatal(err)
	}
	if c.R != 4 || c.Alpha != 8 || c.Scale() != 2 || c.Dropout != 0.05 || c.BaseModel != "some/base" {
		t.Errorf("config %+v", c)
	}
	for name, shape := range readMatches(t).Cases["list"].Keys {
		if !slices.Equal(tensors[name].Shape, shape) {
			t.Errorf("%s: shape %v, want %v", name, tensors[name].Shape, shape)
		}
	}
	comesOutAgain(t, "testdata/list")
}

// So are rank and alpha patterns, exclusions, rank-stabilised scaling, magnitudes, biases and whole modules. The folders are those that package
// engine/llama holds to PEFT's logits and gradients: what is written here, PEFT has written, and loads.
func TestOracleFamilyComesOutAgain(t *testing.T) {
	folders, err := filepath.Glob("../../engine/llama/testdata/family/*/adapter_config.json")
	if err != nil || len(folders) < 6 {
		t.Fatal(err, folders)
	}
	for _, f := range folders {
		t.Run(filepath.Base(filepath.Dir(f)), func(t *testing.T) { comesOutAgain(t, filepath.Dir(f)) })
	}
}

func comesOutAgain(t *testing.T, folder string) {
	t.Helper()
	c, tensors, err := peft.Read(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	var out []safetensors.Tensor
	for name, tensor := range tensors {
		out = append(out, safetensors.Tensor{Name: name, Shape: tensor.Shape, Data: tensor.Data})
	}
	dir := t.TempDir()
	if err := peft.Write(dir, c, out); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		if got, want := read(t, dir, file), read(t, folder, file); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
		}
	}
}

// read reads a file; target_modules in a configuration are put in order, as text.
func read(t *testing.T, dir, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(data), "    \"v_proj\",\n    \"q_proj\"\n", "    \"q_proj\",\n    \"v_proj\"\n", 1)
}

func TestConfigsOfPEFTAreRead(t *testing.T) {
	for name, want := range map[string]string{"all-linear": "", "regex": `(?!.*layers\.0).*\.(gate|up)_proj`} {
		data, err := os.ReadFile(filepath.Join("testdata", name, "adapter_config.json"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := peft.ParseConfig(data)
		if err != nil {
			t.Fatal(err)
		}
		if c.TargetRegex != want || c.UseRSLoRA != (name == "regex") {
			t.Errorf("%s: %+v", name, c)
		}
		if name == "regex" && c.Scale() != 8/2.0 {
			t.Errorf("scale %v, want alpha/sqrt(r) = 4", c.Scale())
		}
	}
}

func TestUnsupportedOptionsAreRefusedByName(t *testing.T) {
	for _, option := range []string{
		`"bias": "all"`, `"modules_to_save": [""]`, `"rank_pattern": {"q_proj": 0}`, `"rank_pattern": {"(": 1}`,
		`"alpha_pattern": {"q_proj": "x"}`, `"layers_to_transform": [0]`, `"exclude_modules": 3`, `"exclude_modules": "("`, `"lora_bias": true`,
		`"fan_in_fan_out": true`, `"init_lora_weights": "pissa"`, `"layer_replication": [[0, 1]]`, `"trainable_token_indices": [1]`,
		`"task_type": "SEQ_CLS"`, `"some_future_option": 1`, `"peft_type": "LOHA"`, `"r": 0`, `"lora_dropout": 1.0`, `"target_modules": []`,
		`"target_modules": "("`, `"target_modules": 3`,
	} {
		key := strings.Split(option, `"`)[1]
		_, err := peft.ParseConfig([]byte(`{"peft_type": "LORA", ` + option + `}`))
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: error %v does not name the option", option, err)
		}
	}
	if _, err := peft.ParseConfig([]byte(`{"r": 4}`)); err == nil || !strings.Contains(err.Error(), "peft_type") {
		t.Errorf("no peft_type: %v", err)
	}
}

func TestOptionsThatAreOffAreAccepted(t *testing.T) {
	c, err := peft.ParseConfig([]byte(`{"peft_type": "LORA", "some_future_option": null, "another": {}, "init_lora_weights": "gaussian"}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.R != 8 || c.Alpha != 8 || !slices.Equal(c.TargetModules, []string{"q_proj", "v_proj"}) {
		t.Errorf("defaults %+v", c)
	}
}

func matrix(name string, rows, cols int) safetensors.Tensor {
	return safetensors.Tensor{Name: name, Shape: []int{rows, cols}, Data: make([]float32, rows*cols)}
}

func TestWriteRefusesWhatPEFTWouldNotLoad(t *testing.T) {
	a, b := peft.Names("model.layers.0.self_attn.q_proj")
	c := peft.LoraConfig{R: 2, Alpha: 2, TargetModules: []string{"q_proj"}}
	for want, tensors := range map[string][]safetensors.Tensor{
		"only one":     {matrix(a, 2, 4)},
		"nor anything": {matrix(a, 2, 4), matrix(b, 4, 2), matrix("base_model.model.lm_head.weight", 4, 4)},
		"rank 2":       {matrix(a, 3, 4), matrix(b, 4, 2)},
		"not lora_A":   {matrix("model.q_proj.weight", 2, 4)},
		"no tensors":   nil,
		"does not fi":  {matrix(a, 2, 4), matrix(b, 2, 4)},
	} {
		if err := peft.Write(t.TempDir(), c, tensors); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestAllLinearIsWrittenAsNames(t *testing.T) {
	dir := t.TempDir()
	a, b := peft.Names("model.layers.0.self_attn.q_proj")
	c, d := peft.Names("model.layers.1.mlp.up_proj")
	tensors := []safetensors.Tensor{matrix(a, 2, 4), matrix(b, 4, 2), matrix(c, 2, 4), matrix(d, 4, 2)}
	if err := peft.Write(dir, peft.LoraConfig{R: 2, Alpha: 3.5, TargetModules: []string{"All-Linear"}}, tensors); err != nil {
		t.Fatal(err)
	}
	got, read, err := peft.Read(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.TargetModules, []string{"q_proj", "up_proj"}) || got.Alpha != 3.5 || len(read) != 4 {
		t.Errorf("config %+v, %d tensors", got, len(read))
	}
}

// Patterns, exclusions and whole modules by PEFT's rules.
func TestOfAndMatch(t *testing.T) {
	c := peft.LoraConfig{R: 8, Alpha: 16, TargetModules: []string{"all-linear"}, ExcludeModules: []string{"o_proj"}, ModulesToSave: []string{"lm_head", "1.mlp.up_proj"},
		RankPattern: map[string]int{"q_proj": 2, `layers\.[01]\..*_proj`: 4, "^k_proj": 32}, AlphaPattern: map[string]float64{"q_proj": 1}}
	for module, want := range map[string]struct {
		match bool
		r     int
		scale float64
	}{
		"model.layers.0.self_attn.q_proj": {true, 4, 0.25}, // the pattern that comes first by its letters
		"model.layers.7.self_attn.q_proj": {true, 2, 0.5},
		"model.layers.7.self_attn.k_proj": {true, 8, 2},
		"model.layers.7.self_attn.o_proj": {false, 8, 2},
		"model.layers.1.mlp.up_proj":      {false, 4, 4},
		"lm_head":                         {false, 8, 2},
	} {
		if r, scale := c.Of(module); r != want.r || scale != want.scale || c.Match(module) != want.match {
			t.Errorf("%s: match %v, rank %d, scale %v, want %+v", module, c.Match(module), r, scale, want)
		}
	}
	if c.MaxRank() != 32 {
		t.Errorf("the largest rank is %d", c.MaxRank())
	}
}

func TestDoRANeedsItsMagnitudes(t *testing.T) {
	a, b := peft.Names("model.layers.0.self_attn.q_proj")
	c := peft.LoraConfig{R: 2, Alpha: 2, UseDoRA: true, TargetModules: []string{"q_proj"}}
	if err := peft.Write(t.TempDir(), c, []safetensors.Tensor{matrix(a, 2, 4), matrix(b, 4, 2)}); err == nil || !strings.Contains(err.Error(), "lora_magnitude_vector") {
		t.Errorf("%v", err)
	}
}
