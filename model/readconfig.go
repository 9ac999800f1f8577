package model

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

const maxLayers = 4096

// jsonConfig is config.json as transformers v4 and v5 write it. Pointers tell an absent key from a zero.
type jsonConfig struct {
	Architectures       []string        `json:"architectures"`
	ModelType           string          `json:"model_type"`
	VocabSize           int             `json:"vocab_size"`
	HiddenSize          int             `json:"hidden_size"`
	IntermediateSize    int             `json:"intermediate_size"`
	NumLayers           int             `json:"num_hidden_layers"`
	NumHeads            int             `json:"num_attention_heads"`
	NumKVHeads          *int            `json:"num_key_value_heads"`
	HeadDim             *int            `json:"head_dim"`
	HiddenAct           *string         `json:"hidden_act"`
	HiddenActivation    *string         `json:"hidden_activation"` // Gemma's word for it
	RMSNormEps          *float64        `json:"rms_norm_eps"`
	MaxPosition         *int            `json:"max_position_embeddings"`
	RopeTheta           *float64        `json:"rope_theta"`
	RopeScaling         json.RawMessage `json:"rope_scaling"`
	RopeParameters      json.RawMessage `json:"rope_parameters"`
	PartialRotaryFactor *float64        `json:"partial_rotary_factor"`
	OriginalMaxPosition *int            `json:"original_max_position_embeddings"` // Phi-3's
	RopeLocalBaseFreq   *float64        `json:"rope_local_base_freq"`
	TieEmbeddings       *bool           `json:"tie_word_embeddings"`
	AttentionBias       bool            `json:"attention_bias"`
	AttentionDropout    float64         `json:"attention_dropout"`
	MLPBias             bool            `json:"mlp_bias"`
	SlidingWindow       json.RawMessage `json:"sliding_window"`
	UseSlidingWindow    bool            `json:"use_sliding_window"`
	MaxWindowLayers     *int            `json:"max_window_layers"`
	LayerTypes          []string        `json:"layer_types"`

	SlidingWindowPattern *int            `json:"sliding_window_pattern"`
	QueryPreAttnScalar   *float64        `json:"query_pre_attn_scalar"`
	AttnSoftcap          json.RawMessage `json:"attn_logit_softcapping"`
	FinalSoftcap         json.RawMessage `json:"final_logit_softcapping"`
	Bidirectional        *bool           `json:"use_bidirectional_attention"`
	EmbedDropout         float64         `json:"embd_pdrop"`
	ResidDropout         float64         `json:"resid_pdrop"`

	BOS          json.RawMessage `json:"bos_token_id"`
	EOS          json.RawMessage `json:"eos_token_id"`
	Pad          json.RawMessage `json:"pad_token_id"`
	TorchDType   string          `json:"torch_dtype"`
	DType        string          `json:"dtype"`
	Quantization json.RawMessage `json:"quantization_config"`
}

// ReadConfig parses a config.json. An absent key has the default of the family's configuration class in transformers. What is not exactly
// of a supported family is refused by name.
func ReadConfig(data []byte) (Config, error) {
	var j jsonConfig
	if err := json.Unmarshal(data, &j); err != nil {
		return Config{}, fmt.Errorf("read config.json: %w", err)
	}
	c, err := j.config()
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		return Config{}, fmt.Errorf("read config.json: %w", err)
	}
	return c, nil
}

func (j *jsonConfig) checkSupported(f family) error {
	act := "silu"
	if f.gemma {
		act = "gelu_pytorch_tanh"
	}
	switch {
	case len(j.Architectures) > 0 && j.Architectures[0] != f.architecture:
		return fmt.Errorf("architectures %q is not supported for model_type %s; supported: %s", j.Architectures, f.name, f.architecture)
	case or(j.HiddenActivation, or(j.HiddenAct, act)) != act:
		return fmt.Errorf("hidden_act %q is not supported for model_type %s; supported: %s", or(j.HiddenActivation, or(j.HiddenAct, act)), f.name, act)
	case j.AttentionDropout != 0 || j.EmbedDropout != 0 || j.ResidDropout != 0:
		return fmt.Errorf("attention_dropout %v, embd_pdrop %v, resid_pdrop %v are not supported; supported: 0", j.AttentionDropout, j.EmbedDropout, j.ResidDropout)
	case or(j.Bidirectional, false):
		return errors.New("use_bidirectional_attention is not supported; supported: false")
	}
	return j.checkQuantization()
}

func (j *jsonConfig) config() (Config, error) {
	f, err := familyOf(j.ModelType)
	if err != nil {
		return Config{}, err
	}
	if err := j.checkSupported(f); err != nil {
		return Config{}, err
	}
	c := Config{
		Architecture: f.architecture,
		VocabSize:    j.VocabSize, HiddenSize: j.HiddenSize, IntermediateSize: j.IntermediateSize,
		NumLayers: j.NumLayers, NumHeads: j.NumHeads, NumKVHeads: or(j.NumKVHeads, j.NumHeads),
		RMSNormEps: or(j.RMSNormEps, f.eps), MaxPosition: or(j.MaxPosition, f.maxPosition),
		TieEmbeddings: or(j.TieEmbeddings, f.tied), MLPBias: j.MLPBias,
		DType: cmp.Or(j.DType, j.TorchDType), FourBit: !isNull(j.Quantization),
	}
	switch {
	case j.HeadDim != nil:
		c.HeadDim = *j.HeadDim
	case f.headDim > 0:
		c.HeadDim = f.headDim
	case c.NumHeads > 0:
		if c.HiddenSize%c.NumHeads != 0 {
			return c, fmt.Errorf("hidden_size %d is not a multiple of num_attention_heads %d and head_dim is not given", c.HiddenSize, c.NumHeads)
		}
		c.HeadDim = c.HiddenSize / c.NumHeads
	}
	if err := j.specialIDs(&c, f); err != nil {
		return c, err
	}
	if err := f.build(j, &c); err != nil {
		return c, err
	}
	return c, j.rope(&c, f)
}

// specialIDs reads the ids, where an absent key has the family's default and null means none.
func (j *jsonConfig) specialIDs(c *Config, f family) (err error) {
	one := func(raw json.RawMessage, name string, absent int) int {
		ids, e := parseIDs(raw, name)
		if e != nil {
			err = e
		}
		if raw == nil {
			return absent
		}
		if len(ids) == 0 {
			return -1
		}
		return ids[0]
	}
	c.BOS, c.Pad = one(j.BOS, "bos_token_id", f.bos), one(j.Pad, "pad_token_id", f.pad)
	if err != nil {
		return err
	}
	if j.EOS == nil {
		if f.eos >= 0 {
			c.EOS = []int{f.eos}
		}
		return nil
	}
	c.EOS, err = parseIDs(j.EOS, "eos_token_id")
	return err
}

// parseIDs reads null, one id or a list of ids. A negative id (some configs say -1 for "none") is left out.
func parseIDs(raw json.RawMessage, name string) ([]int, error) {
	if isNull(raw) {
		return nil, nil
	}
	var ids []int
	if raw[0] != '[' {
		raw = append(append([]byte{'['}, raw...), ']')
	}
	if err := json.Unmarshal(raw, &ids); err != nil {
		return nil, fmt.Errorf("%s: not an id, a list of ids or null: %w", name, err)
	}
	kept := ids[:0]
	for _, id := range ids {
		if id >= 0 {
			kept = append(kept, id)
		}
	}
	return kept, nil
}

// nullableInt reads a number, or null as 0.
func nullableInt(raw json.RawMessage) (n int, err error) {
	if isNull(raw) {
		return 0, nil
	}
	err = json.Unmarshal(raw, &n)
	return n, err
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || bytes.Equal(raw, []byte("null")) }

func or[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}

// Validate refuses dimensions that cannot be a model, before anything is allocated for them.
func (c Config) Validate() error {
	const limit = 1 << 24
	for _, d := range []struct {
		name  string
		value int
	}{
		{"vocab_size", c.VocabSize}, {"hidden_size", c.HiddenSize}, {"intermediate_size", c.IntermediateSize},
		{"num_hidden_layers", c.NumLayers}, {"num_attention_heads", c.NumHeads}, {"num_key_value_heads", c.NumKVHeads},
		{"head_dim", c.HeadDim}, {"max_position_embeddings", c.MaxPosition},
	} {
		if d.value < 1 || d.value > limit {
			return fmt.Errorf("%s: %d is missing or not in 1..%d", d.name, d.value, limit)
		}
	}
	if c.NumLayers > maxLayers || c.NumHeads > limit/c.HeadDim {
		return fmt.Errorf("num_hidden_layers %d, num_attention_heads %d of head_dim %d: too large", c.NumLayers, c.NumHeads, c.HeadDim)
	}
	if c.NumHeads%c.NumKVHeads != 0 {
		return fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.NumHeads, c.NumKVHeads)
	}
	if c.HeadDim%2 != 0 {
		return fmt.Errorf("head_dim %d is odd; rotary positions turn pairs", c.HeadDim)
	}
	if !(c.RMSNormEps > 0 && c.RMSNormEps < 1) {
		return fmt.Errorf("rms_norm_eps: %v is not in (0, 1)", c.RMSNormEps)
	}
	if !(c.RopeTheta > 0) || math.IsInf(c.RopeTheta, 0) || c.SlidingRopeTheta < 0 || math.IsInf(c.SlidingRopeTheta, 0) {
		return fmt.Errorf("rope_theta: %v, for sliding layers %v: not positive", c.RopeTheta, c.SlidingRopeTheta)
	}
	if c.Window < 0 || c.Window > limit {
		return fmt.Errorf("sliding_window: %d is not in 1..%d", c.Window, limit)
	}
	if turned := cmp.Or(c.RotaryDim, c.HeadDim); turned < 2 || turned > c.HeadDim || turned%2 != 0 {
		return fmt.Errorf("partial_rotary_factor: %d of head_dim %d cannot turn in pairs", turned, c.HeadDim)
	}
	if !(c.ScoreScale >= 0) || math.IsInf(c.ScoreScale, 0) {
		return fmt.Errorf("query_pre_attn_scalar: scores would be multiplied by %v", c.ScoreScale)
	}
	if err := c.validateIDs(); err != nil {
		return err
	}
	return c.RopeScaling.validate(cmp.Or(c.RotaryDim, c.HeadDim))
}

func (c Config) validateIDs() error {
	for _, id := range append([]int{c.BOS, c.Pad}, c.EOS...) {
		if id >= c.VocabSize {
			return fmt.Errorf("special token id %d is outside vocab_size %d", id, c.VocabSize)
		}
	}
	return nil
}

// TensorSpec is the name and shape of one weight.
type TensorSpec struct {
	Name  string
	Shape []int
}

// Tensors lists the weights of a model of this shape under their Hugging Face names: embedding, layers, norm, head.
// A tied head is not among them. Linear weights are [out, in].
func (c Config) Tensors() []TensorSpec {
	specs := []TensorSpec{{"model.embed_tokens.weight", []int{c.VocabSize, c.HiddenSize}}}
	linear := func(name string, out, in int, bias bool) {
		specs = append(specs, TensorSpec{name + ".weight", []int{out, in}})
		if bias {
			specs = append(specs, TensorSpec{name + ".bias", []int{out}})
		}
	}
	norm := func(name string, n int) { specs = append(specs, TensorSpec{name + ".weight", []int{n}}) }
	q, kv := c.NumHeads*c.HeadDim, c.NumKVHeads*c.HeadDim
	for i := range c.NumLayers {
		p := fmt.Sprintf("model.layers.%d.", i)
		norm(p+"input_layernorm", c.HiddenSize)
		if c.Fused {
			linear(p+"self_attn.qkv_proj", q+2*kv, c.HiddenSize, c.QKVBias)
		} else {
			linear(p+"self_attn.q_proj", q, c.HiddenSize, c.QKVBias)
			linear(p+"self_attn.k_proj", kv, c.HiddenSize, c.QKVBias)
			linear(p+"self_attn.v_proj", kv, c.HiddenSize, c.QKVBias)
		}
		if c.QKNorm {
			norm(p+"self_attn.q_norm", c.HeadDim)
			norm(p+"self_attn.k_norm", c.HeadDim)
		}
		linear(p+"self_attn.o_proj", c.HiddenSize, q, c.OutBias)
		norm(p+"post_attention_layernorm", c.HiddenSize)
		if c.PostNorms {
			norm(p+"pre_feedforward_layernorm", c.HiddenSize)
			norm(p+"post_feedforward_layernorm", c.HiddenSize)
		}
		if c.Fused {
			linear(p+"mlp.gate_up_proj", 2*c.IntermediateSize, c.HiddenSize, c.MLPBias)
		} else {
			linear(p+"mlp.gate_proj", c.IntermediateSize, c.HiddenSize, c.MLPBias)
			linear(p+"mlp.up_proj", c.IntermediateSize, c.HiddenSize, c.MLPBias)
		}
		linear(p+"mlp.down_proj", c.HiddenSize, c.IntermediateSize, c.MLPBias)
	}
	specs = append(specs, TensorSpec{"model.norm.weight", []int{c.HiddenSize}})
	if !c.TieEmbeddings {
		linear("lm_head", c.VocabSize, c.HiddenSize, false)
	}
	return specs
}
