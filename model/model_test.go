package model_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"lorad/model"
	"lorad/model/safetensors"
)

// described is what transformers has in a tensor; the floats are hexadecimal.
type described struct {
	Shape   []int
	First   []string
	Squares string
}

func hex(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func open(t *testing.T, fsys fs.FS) *model.Folder {
	t.Helper()
	f, err := model.Open(fsys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Folders of transformers v4 and v5 in bf16, f16, f32, one file and shards hold the values transformers has.
func TestWeightsAreTransformers(t *testing.T) {
	for _, version := range []string{"v4", "v5"} {
		var folders map[string]map[string]described
		data, err := os.ReadFile("testdata/" + version + ".json")
		if err == nil {
			err = json.Unmarshal(data, &folders)
		}
		if err != nil || len(folders) != 3 {
			t.Fatal(err, len(folders))
		}
		for name, tensors := range folders {
			f := open(t, os.DirFS("testdata/"+name))
			if len(tensors) < 21 || !f.HasWeights() {
				t.Fatalf("%s: %d tensors, weights %v", name, len(tensors), f.HasWeights())
			}
			for tensor, want := range tensors {
				checkTensor(t, f, name, tensor, want)
			}
		}
	}
}

func checkTensor(t *testing.T, f *model.Folder, folder, name string, want described) {
	t.Helper()
	data, shape, err := f.Tensor(name)
	if err != nil {
		t.Errorf("%s: %v", folder, err)
		return
	}
	squares := 0.0
	for _, v := range data {
		squares += float64(float64(v) * float64(v))
	}
	if !slices.Equal(shape, want.Shape) || math.Abs(squares-hex(t, want.Squares)) > 1e-12*squares {
		t.Errorf("%s %s: shape %v, squares %v; want %v, %v", folder, name, shape, squares, want.Shape, want.Squares)
	}
	for i, first := range want.First {
		if float64(data[i]) != hex(t, first) {
			t.Errorf("%s %s[%d] = %v, want %v", folder, name, i, data[i], first)
		}
	}
}

var base = model.Config{
	Architecture: "LlamaForCausalLM", VocabSize: 16, HiddenSize: 8, IntermediateSize: 12, NumLayers: 2, NumHeads: 4, NumKVHeads: 2, HeadDim: 2,
	RMSNormEps: 1e-5, RopeTheta: 10000, MaxPosition: 64, BOS: 1, EOS: []int{2}, Pad: -1, DType: "bfloat16",
}

func TestConfigs(t *testing.T) {
	sharded := base
	sharded.TieEmbeddings, sharded.DType = true, "float32"
	v4 := base
	v4.QKVBias, v4.OutBias, v4.RopeTheta, v4.EOS, v4.Pad, v4.DType = true, true, 5e5, []int{2, 3}, 4, "float16"
	v4.RopeScaling = model.RopeScaling{Type: "linear", Factor: 2}
	v5 := v4
	v5.HeadDim, v5.MLPBias = 6, true
	v5.RopeScaling = model.RopeScaling{Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPosition: 32}
	for name, want := range map[string]model.Config{"v4": base, "v5": base, "v4-sharded": sharded, "v5-sharded": sharded, "v4-scaled": v4, "v5-scaled": v5} {
		if got := open(t, os.DirFS("testdata/"+name)).Config(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v, want\n%+v", name, got, want)
		}
	}
}

// minimal is a config.json with only what has no default.
const minimal = `{"model_type": "llama", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4`

func TestDefaults(t *testing.T) {
	got, err := model.ReadConfig([]byte(minimal + "}"))
	if err != nil {
		t.Fatal(err)
	}
	want := base
	want.NumKVHeads, want.RMSNormEps, want.MaxPosition, want.DType = 4, 1e-6, 2048, ""
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want\n%+v", got, want)
	}
	got, err = model.ReadConfig([]byte(minimal + `, "bos_token_id": null, "eos_token_id": null, "pad_token_id": -1}`))
	if err != nil || got.BOS != -1 || len(got.EOS) != 0 || got.Pad != -1 {
		t.Errorf("null ids: %+v, %v", got, err)
	}
}

func TestConfigsThatAreNotLlamaAreRefusedByName(t *testing.T) {
	for keys, want := range map[string]string{
		`"model_type": "gemma"`:                                                                                  "supported: llama, mistral, qwen2, qwen3, phi3, gemma2, gemma3_text",
		`"model_type": "mistral", "sliding_window": -1`:                                                          "sliding_window",
		`"model_type": "qwen3", "layer_types": ["full_attention"]`:                                               "layer_types",
		`"model_type": "qwen3", "layer_types": ["full_attention", "linear_attention"]`:                           "linear_attention",
		`"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "final_logit_softcapping": 30.0`: "softcapping",
		`"model_type": "gemma2", "attn_logit_softcapping": 0`:                                                    "attn_logit_softcapping",
		`"model_type": "phi3", "eos_token_id": 2, "pad_token_id": 0, "rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1, 2]}`: "short_factor has 1",
		`"model_type": "phi3", "eos_token_id": 2, "pad_token_id": 0, "partial_rotary_factor": 0.3`:                                                     "partial_rotary_factor",
		`"rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1]}`:                                                                "longrope",
		`"architectures": ["LlamaForSequenceClassification"]`:                                                                                          "LlamaForSequenceClassification",
		`"hidden_act": "gelu"`:                                  "gelu",
		`"rope_scaling": {"type": "dynamic", "factor": 2.0}`:    "dynamic",
		`"rope_parameters": {"rope_type": "yarn", "factor": 2}`: "yarn",
		`"rope_scaling": {"factor": 2.0}`:                       "rope type",
		`"rope_scaling": {"type": "linear"}`:                    "factor",
		`"rope_scaling": {"rope_type": "llama3", "factor": 8}`:  "low_freq_factor",
		`"rope_parameters": {"partial_rotary_factor": 0.5}`:     "partial_rotary_factor",
		`"attention_dropout": 0.1`:                              "attention_dropout",
		`"quantization_config": {"quant_method": "gptq"}`:       "quantization_config",
		`"num_key_value_heads": 3`:                              "num_key_value_heads",
		`"num_key_value_heads": 0`:                              "num_key_value_heads",
		`"head_dim": 3`:                                         "head_dim",
		`"hidden_size": 10`:                                     "hidden_size",
		`"num_hidden_layers": 1000000000`:                       "num_hidden_layers",
		`"vocab_size": 0`:                                       "vocab_size",
		`"rms_norm_eps": 0`:                                     "rms_norm_eps",
		`"rope_theta": -1`:                                      "rope_theta",
		`"eos_token_id": [2, 16]`:                               "16",
		`"eos_token_id": "two"`:                                 "eos_token_id",
		`"vocab_size": "many"`:                                  "vocab_size",
	} {
		_, err := model.ReadConfig([]byte(minimal + ", " + keys + "}"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not say %q", keys, err, want)
		}
	}
	if _, err := model.ReadConfig([]byte(minimal + `, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": null}`)); err != nil {
		t.Errorf("mistral without sliding window: %v", err)
	}
}

// files copies a folder of testdata into memory, to be damaged.
func files(t *testing.T, dir string) fstest.MapFS {
	t.Helper()
	m := fstest.MapFS{}
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*"))
	if err != nil || len(paths) == 0 {
		t.Fatal(err, len(paths))
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		m[filepath.Base(p)] = &fstest.MapFile{Data: data}
	}
	return m
}

func TestDamagedFoldersAreRefused(t *testing.T) {
	const index = "model.safetensors.index.json"
	replace := func(name, old, new string) func(fstest.MapFS) {
		return func(m fstest.MapFS) { m[name].Data = []byte(strings.ReplaceAll(string(m[name].Data), old, new)) }
	}
	for want, damage := range map[string]func(fstest.MapFS){
		"config.json":            func(m fstest.MapFS) { delete(m, "config.json") },
		"00002-of":               func(m fstest.MapFS) { delete(m, "model-00002-of-00003.safetensors") },
		"not a safetensors file": replace(index, "model-00001", "../model-00001"),
		"should be in":           replace(index, "model-00001", "model-00002"),
		"model.norm.weight is missing": func(m fstest.MapFS) {
			for _, f := range m { // in the index and in the header of the shard
				f.Data = []byte(strings.ReplaceAll(string(f.Data), "model.norm.weight", "model.norm.weighs"))
			}
		},
		"config.json says [3": replace("config.json", `"vocab_size": 16`, `"vocab_size": 32`),
		"cut short": func(m fstest.MapFS) {
			f := m["model-00003-of-00003.safetensors"]
			f.Data = f.Data[:len(f.Data)-1]
		},
		"generation_config.json": replace("generation_config.json", `"eos_token_id": 2`, `"eos_token_id": 99`),
	} {
		m := files(t, "v5-sharded")
		damage(m)
		if _, err := model.Open(m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestMissingWeights(t *testing.T) {
	m := files(t, "v5")
	delete(m, "model.safetensors")
	f := open(t, m)
	if _, _, err := f.Tensor("model.norm.weight"); f.HasWeights() || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("weights %v, error %v", f.HasWeights(), err)
	}
	if _, _, err := open(t, files(t, "v5")).Tensor("model.norm.bias"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a weight that is not there: %v", err)
	}
}

func TestTheHeadOfATiedModelIsItsEmbedding(t *testing.T) {
	f := open(t, os.DirFS("testdata/v5-sharded"))
	head, _, err := f.Tensor("lm_head.weight")
	if err != nil {
		t.Fatal(err)
	}
	embedding, _, err := f.Tensor("model.embed_tokens.weight")
	if err != nil || !slices.Equal(head, embedding) {
		t.Errorf("head %v, embedding %v, error %v", head[:2], embedding[:2], err)
	}
	if slices.ContainsFunc(f.Config().Tensors(), func(s model.TensorSpec) bool { return s.Name == "lm_head.weight" }) {
		t.Error("the tied head is listed as a weight")
	}
}

func TestChatTemplate(t *testing.T) {
	for want, add := range map[string][2]string{
		"":  {"tokenizer_config.json", `{}`},
		"a": {"tokenizer_config.json", `{"chat_template": "a"}`},
		"b": {"tokenizer_config.json", `{"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "b"}]}`},
		"c": {"chat_template.jinja", `c`},
	} {
		m := files(t, "v5")
		m["tokenizer_config.json"] = &fstest.MapFile{Data: []byte(`{"chat_template": "old"}`)}
		m[add[0]] = &fstest.MapFile{Data: []byte(add[1])}
		if got := open(t, m).ChatTemplate(); got != want {
			t.Errorf("%s: template %q, want %q", add[1], got, want)
		}
	}
}

// A folder that is written is read back the same, and is written the same again.
func TestWriteFolder(t *testing.T) {
	for _, name := range []string{"v4", "v5-sharded", "v5-scaled", "v4-scaled"} {
		src := files(t, name)
		src["tokenizer.json"] = &fstest.MapFile{Data: []byte("{}")}
		in := open(t, src)
		c := in.Config()
		var tensors []safetensors.Tensor
		for _, s := range c.Tensors() {
			data, shape, err := in.Tensor(s.Name)
			if err != nil {
				t.Fatal(err)
			}
			tensors = append(tensors, safetensors.Tensor{Name: s.Name, Shape: shape, Data: data})
		}
		dir := t.TempDir()
		if err := model.WriteFolder(dir, c, tensors, src); err != nil {
			t.Fatal(err)
		}
		out := open(t, os.DirFS(dir))
		c.DType = "float32"
		if got := out.Config(); !reflect.DeepEqual(got, c) {
			t.Errorf("%s: config %+v, want %+v", name, got, c)
		}
		for _, want := range tensors {
			if got, _, err := out.Tensor(want.Name); err != nil || !slices.Equal(got, want.Data) {
				t.Errorf("%s %s changed: %v", name, want.Name, err)
			}
		}
		if data, err := os.ReadFile(filepath.Join(dir, "tokenizer.json")); err != nil || string(data) != "{}" {
			t.Errorf("tokenizer.json: %q, %v", data, err)
		}
		if err := model.WriteFolder(dir, c, tensors[1:], src); err == nil {
			t.Error("a folder without a weight was written")
		}
	}
}
