package peft

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// defaults is adapter_config.json as PEFT 0.21 writes it for a causal language model, less the keys that LoraConfig holds. It is what
// lorad writes, and what it accepts in a file: another value means that the adapter computes something lorad does not.
const defaults = `{
  "alora_invocation_tokens": null,
  "arrow_config": null,
  "auto_mapping": null,
  "corda_config": null,
  "ensure_weight_tying": false,
  "eva_config": null,
  "fan_in_fan_out": false,
  "inference_mode": true,
  "kasa_config": null,
  "layer_replication": null,
  "layers_pattern": null,
  "layers_to_transform": null,
  "loftq_config": {},
  "lora_bias": false,
  "lora_ga_config": null,
  "megatron_config": null,
  "megatron_core": "megatron.core",
  "monteclora_config": null,
  "peft_type": "LORA",
  "peft_version": "0.21.2",
  "qalora_group_size": 16,
  "revision": null,
  "target_parameters": null,
  "task_type": "CAUSAL_LM",
  "trainable_token_indices": null,
  "use_bdlora": null,
  "use_qalora": false,
  "velora_config": null
}`

// harmless reports the keys whose value says nothing about what the adapter computes.
func harmless(key string) bool {
	switch key {
	case "auto_mapping", "inference_mode", "megatron_core", "peft_version", "qalora_group_size", "revision":
		return true
	}
	return false
}

// jsonConfig holds the keys of adapter_config.json that make a LoraConfig.
type jsonConfig struct {
	R             *int               `json:"r"`
	Alpha         *float64           `json:"lora_alpha"`
	Dropout       float64            `json:"lora_dropout"`
	Targets       json.RawMessage    `json:"target_modules"`
	Exclude       json.RawMessage    `json:"exclude_modules"`
	RankPattern   map[string]int     `json:"rank_pattern"`
	AlphaPattern  map[string]float64 `json:"alpha_pattern"`
	UseRSLoRA     bool               `json:"use_rslora"`
	UseDoRA       bool               `json:"use_dora"`
	Bias          string             `json:"bias"`
	ModulesToSave []string           `json:"modules_to_save"`
	Init          any                `json:"init_lora_weights"`
	BaseModel     *string            `json:"base_model_name_or_path"`
}

// ours are the keys of jsonConfig.
var ours = []string{"r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora",
	"bias", "modules_to_save", "init_lora_weights", "base_model_name_or_path"}

// ParseConfig reads an adapter_config.json. r and lora_alpha default to 8 as in PEFT; an option that lorad does not compute is an
// error with its name.
func ParseConfig(data []byte) (LoraConfig, error) {
	c, err := parseConfig(data)
	if err != nil {
		return LoraConfig{}, fmt.Errorf("read adapter_config.json: %w", err)
	}
	return c, nil
}

func parseConfig(data []byte) (LoraConfig, error) {
	var all map[string]json.RawMessage
	var j jsonConfig
	if err := errors.Join(json.Unmarshal(data, &all), json.Unmarshal(data, &j)); err != nil {
		return LoraConfig{}, err
	}
	if err := checkOptions(all); err != nil {
		return LoraConfig{}, err
	}
	c := LoraConfig{R: 8, Alpha: 8, Dropout: j.Dropout, UseRSLoRA: j.UseRSLoRA, UseDoRA: j.UseDoRA, Bias: j.Bias, ModulesToSave: j.ModulesToSave}
	if len(j.RankPattern) > 0 {
		c.RankPattern = j.RankPattern
	}
	if len(j.AlphaPattern) > 0 {
		c.AlphaPattern = j.AlphaPattern
	}
	if j.R != nil {
		c.R = *j.R
	}
	if j.Alpha != nil {
		c.Alpha = *j.Alpha
	}
	if j.BaseModel != nil {
		c.BaseModel = *j.BaseModel
	}
	if err := errors.Join(c.setTargets(j.Targets), c.setExcluded(j.Exclude), c.setInit(j.Init)); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// setInit reads init_lora_weights. How A and B were initialised does not matter afterwards, unless the base was changed along with them,
// as PiSSA does: such an adapter fits only a base that PEFT changes again when it loads.
func (c *LoraConfig) setInit(v any) error {
	switch v {
	case nil, true, false, "":
		return nil
	case InitGaussian:
		c.Init = InitGaussian
		return nil
	}
	return fmt.Errorf("init_lora_weights: %v is not supported by lorad: the adapter belongs to a changed base; convert it to a plain LoRA with PEFT's "+
		"save_pretrained(path_initial_model_for_weight_conversion=...); lorad's own are converted", v)
}

// setExcluded reads null, a list of names or a regular expression.
func (c *LoraConfig) setExcluded(raw json.RawMessage) error {
	switch {
	case len(raw) == 0 || string(raw) == "null", json.Unmarshal(raw, &c.ExcludeModules) == nil:
		slices.Sort(c.ExcludeModules)
		return nil
	case json.Unmarshal(raw, &c.ExcludeRegex) == nil:
		return nil
	}
	return fmt.Errorf("exclude_modules: %s is neither a list of names nor a string", raw)
}

// setTargets reads null (PEFT's default for Llama), a list of names, "all-linear" or a regular expression.
func (c *LoraConfig) setTargets(raw json.RawMessage) error {
	var one string
	switch {
	case len(raw) == 0 || string(raw) == "null":
		c.TargetModules = []string{"q_proj", "v_proj"}
		return nil
	case json.Unmarshal(raw, &c.TargetModules) == nil:
		slices.Sort(c.TargetModules)
		return nil
	case json.Unmarshal(raw, &one) != nil:
		return fmt.Errorf("target_modules: %s is neither a list of names nor a string", raw)
	}
	c.TargetModules = []string{one}
	if !c.allLinear() {
		c.TargetModules, c.TargetRegex = nil, one
	}
	return nil
}

// checkOptions compares every other key with the default. Absent, null, false and empty all mean "off".
func checkOptions(all map[string]json.RawMessage) error {
	var want map[string]any
	if err := json.Unmarshal([]byte(defaults), &want); err != nil {
		return err
	}
	if kind, err := strconv.Unquote(string(all["peft_type"])); err != nil || kind != "LORA" {
		return fmt.Errorf("peft_type %s is not supported; supported: LORA", all["peft_type"])
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if slices.Contains(ours, key) {
			continue
		}
		var got any
		if err := json.Unmarshal(all[key], &got); err != nil {
			return err
		}
		if harmless(key) || off(got) || same(got, want[key]) {
			continue
		}
		return fmt.Errorf("%s: %s is not supported by lorad; train the adapter without this option", key, all[key])
	}
	return nil
}

// same compares with the default.
func same(got, want any) bool {
	switch got.(type) {
	case []any, map[string]any: // not comparable; the defaults have only empty ones
		return false
	}
	return got == want
}

func off(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// JSON is the adapter_config.json of c: every key PEFT writes, sorted, two spaces of indent, no newline at the end.
func (c *LoraConfig) JSON() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(defaults), &all); err != nil {
		return nil, err
	}
	for key, value := range c.values() {
		raw, err := marshal(value)
		if err != nil {
			return nil, fmt.Errorf("write adapter_config.json: %s: %w", key, err)
		}
		all[key] = raw
	}
	raw, err := marshal(all)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Indent(&out, raw, "", "  ")
	return out.Bytes(), err
}

// values are the keys of jsonConfig as PEFT writes them.
func (c *LoraConfig) values() map[string]any {
	v := map[string]any{
		"r": c.R, "lora_alpha": alphaJSON(c.Alpha), "lora_dropout": floatJSON(c.Dropout), "use_rslora": c.UseRSLoRA, "use_dora": c.UseDoRA,
		"bias": cmp.Or(c.Bias, BiasNone), "init_lora_weights": true, "modules_to_save": nil, "base_model_name_or_path": nil,
		"target_modules": names(c.TargetModules, c.TargetRegex), "exclude_modules": names(c.ExcludeModules, c.ExcludeRegex),
	}
	ranks, alphas := map[string]int{}, map[string]json.RawMessage{}
	maps.Copy(ranks, c.RankPattern)
	for key, alpha := range c.AlphaPattern {
		alphas[key] = alphaJSON(alpha)
	}
	v["rank_pattern"], v["alpha_pattern"] = ranks, alphas
	if c.allLinear() {
		v["target_modules"] = AllLinear
	}
	if c.Init != "" {
		v["init_lora_weights"] = c.Init
	}
	if len(c.ModulesToSave) > 0 {
		v["modules_to_save"] = c.ModulesToSave
	}
	if c.BaseModel != "" {
		v["base_model_name_or_path"] = c.BaseModel
	}
	return v
}

// names is a list of modules, or the regular expression, or null.
func names(list []string, regex string) any {
	switch {
	case regex != "":
		return regex
	case len(list) == 0:
		return nil
	}
	return slices.Sorted(slices.Values(list))
}

// marshal is json.Marshal without the escapes for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// alphaJSON writes a whole number without a point: PEFT's lora_alpha is an int.
func alphaJSON(alpha float64) json.RawMessage {
	if alpha == math.Trunc(alpha) && math.Abs(alpha) < 1<<53 {
		return json.RawMessage(strconv.FormatInt(int64(alpha), 10))
	}
	return floatJSON(alpha)
}

// floatJSON writes a float as Python does, always with a point or an exponent.
func floatJSON(v float64) json.RawMessage {
	s := strconv.FormatFloat(v, 'g', -1, 64)
	if v == math.Trunc(v) && math.Abs(v) < 1e16 {
		s = strconv.FormatFloat(v, 'f', 1, 64)
	}
	return json.RawMessage(s)
}
