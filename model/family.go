package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
)

// family is one model_type: what its configuration class means where config.json says nothing, and what is built in. All else
// is the same for all. Sources: transformers' configuration_*.py and modeling_*.py of each.
type family struct {
	name, architecture string // model_type, architectures[0]

	// defaults of absent keys
	eps         float64
	maxPosition int
	theta       float64
	localTheta  float64 // rope_local_base_freq of sliding layers; 0: they turn as the others do
	headDim     int     // 0: hidden_size / num_attention_heads
	bos, eos    int     // -1: none
	pad         int
	tied        bool
	window      int // sliding_window; 0: none

	// what the class has built in
	qkvBias bool
	fused   bool
	qkNorm  bool
	gemma   bool                                // plus-one norms before and after, GELU, scaled embeddings
	caps    [2]float64                          // of attention's scores and of the logits; 0: none, and config.json may not ask for one
	slides  func(j *jsonConfig, layer int) bool // nil: no layer does
}

var families = []family{
	{name: "llama", architecture: "LlamaForCausalLM", eps: 1e-6, maxPosition: 2048, theta: 1e4, bos: 1, eos: 2, pad: -1},
	{name: "mistral", architecture: "MistralForCausalLM", eps: 1e-6, maxPosition: 4096 * 32, theta: 1e4, bos: 1, eos: 2, pad: -1,
		window: 4096, slides: everyLayer},
	{name: "qwen2", architecture: "Qwen2ForCausalLM", eps: 1e-6, maxPosition: 32768, theta: 1e4, bos: -1, eos: -1, pad: -1,
		window: 4096, qkvBias: true, slides: upperLayers},
	{name: "qwen3", architecture: "Qwen3ForCausalLM", eps: 1e-6, maxPosition: 32768, theta: 1e4, headDim: 128, bos: -1, eos: -1, pad: -1,
		window: 4096, qkNorm: true, slides: upperLayers},
	{name: "phi3", architecture: "Phi3ForCausalLM", eps: 1e-5, maxPosition: 4096, theta: 1e4, bos: 1, eos: 32000, pad: 32000,
		fused: true, slides: everyLayer},
	{name: "gemma2", architecture: "Gemma2ForCausalLM", eps: 1e-6, maxPosition: 8192, theta: 1e4, headDim: 256, bos: 2, eos: 1, pad: 0,
		tied: true, window: 4096, gemma: true, caps: [2]float64{50, 30}, slides: everyOther},
	{name: "gemma3_text", architecture: "Gemma3ForCausalLM", eps: 1e-6, maxPosition: 131072, theta: 1e6, headDim: 256, bos: 2, eos: 1, pad: 0,
		tied: true, window: 4096, qkNorm: true, gemma: true, localTheta: 1e4, slides: fiveOfSix},
}

func familyOf(modelType string) (family, error) {
	names := make([]string, len(families))
	for i, f := range families {
		if names[i] = f.name; f.name == modelType {
			return f, nil
		}
	}
	return family{}, fmt.Errorf("model_type %q is not supported; supported: %s", modelType, strings.Join(names, ", "))
}

// everyLayer: Mistral and Phi-3 know one window for all.
func everyLayer(*jsonConfig, int) bool { return true }

// upperLayers: Qwen slides, if at all, from layer max_window_layers on.
func upperLayers(j *jsonConfig, layer int) bool {
	return j.UseSlidingWindow && layer >= or(j.MaxWindowLayers, 28)
}

// everyOther: Gemma 2 slides in its first layer, its third and so on.
func everyOther(_ *jsonConfig, layer int) bool { return layer%2 == 0 }

// fiveOfSix: every sixth layer of Gemma 3 sees everything.
func fiveOfSix(j *jsonConfig, layer int) bool {
	return (layer+1)%max(1, or(j.SlidingWindowPattern, 6)) != 0
}

// build sets what the family has built in.
func (f family) build(j *jsonConfig, c *Config) error {
	c.QKVBias, c.OutBias = f.qkvBias || j.AttentionBias, j.AttentionBias
	c.Fused, c.QKNorm = f.fused, f.qkNorm
	c.PostNorms, c.NormPlusOne, c.GELU = f.gemma, f.gemma, f.gemma
	if f.gemma {
		c.EmbedScale = math.Sqrt(float64(c.HiddenSize))
		c.ScoreScale = 1 / math.Sqrt(or(j.QueryPreAttnScalar, 256))
	}
	return errors.Join(f.softcaps(j, c), f.sliding(j, c))
}

// softcaps reads the two of Gemma 2, which null turns off.
func (f family) softcaps(j *jsonConfig, c *Config) error {
	for i, cap := range []struct {
		name string
		raw  json.RawMessage
		to   *float64
	}{{"attn_logit_softcapping", j.AttnSoftcap, &c.AttnSoftcap}, {"final_logit_softcapping", j.FinalSoftcap, &c.LogitSoftcap}} {
		if len(cap.raw) == 0 {
			*cap.to = f.caps[i]
			continue
		}
		if isNull(cap.raw) {
			continue
		}
		err := json.Unmarshal(cap.raw, cap.to)
		if err != nil || f.caps[i] == 0 || !(*cap.to > 0) || math.IsInf(*cap.to, 0) {
			return fmt.Errorf("%s %s is not supported for model_type %s; supported: null, or for gemma2 a number above 0", cap.name, cap.raw, f.name)
		}
	}
	return nil
}

// sliding finds the layers with a window. transformers v5 lists them in layer_types; before, each class had its rule.
func (f family) sliding(j *jsonConfig, c *Config) error {
	window, given := f.window, len(j.SlidingWindow) > 0
	if given {
		n, err := nullableInt(j.SlidingWindow)
		if err != nil {
			return fmt.Errorf("sliding_window: %w", err)
		}
		window = n
	}
	if window == 0 || f.slides == nil {
		return nil
	}
	if j.LayerTypes != nil && len(j.LayerTypes) != c.NumLayers {
		return fmt.Errorf("layer_types lists %d layers, num_hidden_layers says %d", len(j.LayerTypes), c.NumLayers)
	}
	layers, any := make([]bool, max(0, min(c.NumLayers, maxLayers))), false
	for i := range layers {
		switch {
		case j.LayerTypes == nil:
			layers[i] = f.slides(j, i)
		case j.LayerTypes[i] == "sliding_attention":
			layers[i] = true
		case j.LayerTypes[i] != "full_attention":
			return fmt.Errorf("layer_types %q is not supported; supported: full_attention, sliding_attention", j.LayerTypes[i])
		}
		any = any || layers[i]
	}
	if any {
		c.Window, c.Sliding = window, layers
	}
	return nil
}
