package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lorad/internal/durable"
	"lorad/model/safetensors"
)

// companions are the files of a folder that go with a model when its weights change.
var companions = []string{
	"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "vocab.json", "merges.txt",
	"chat_template.jinja", "generation_config.json",
}

// WriteFolder writes a Hugging Face model folder: the weights of a model of shape c, and from src (nil: nothing) the tokenizer's
// files and generation_config.json. Each file is there wholly or not at all; config.json comes last, so a folder that has it is complete.
func WriteFolder(dir string, c Config, tensors []safetensors.Tensor, src fs.FS) error {
	if err := writeFolder(dir, c, tensors, src); err != nil {
		return fmt.Errorf("write model folder %s: %w", dir, err)
	}
	return nil
}

func writeFolder(dir string, c Config, tensors []safetensors.Tensor, src fs.FS) error {
	if err := c.checkTensors(tensors); err != nil {
		return err
	}
	switch tensors[0].DType {
	case safetensors.BF16:
		c.DType = "bfloat16"
	case safetensors.F16:
		c.DType = "float16"
	default:
		c.DType = "float32"
	}
	config, err := c.configOf(src)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := copyCompanions(dir, src); err != nil {
		return err
	}
	err = writeFile(filepath.Join(dir, singleFile), func(w io.Writer) error {
		return safetensors.Write(w, tensors, map[string]string{"format": "pt"})
	})
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, "config.json"), config, 0o644)
}

// checkTensors wants every weight of the configuration, in its shape, and nothing else.
func (c Config) checkTensors(tensors []safetensors.Tensor) error {
	shapes := make(map[string][]int, len(tensors))
	for _, t := range tensors {
		shapes[t.Name] = t.Shape
	}
	specs := c.Tensors()
	for _, s := range specs {
		if shape, ok := shapes[s.Name]; !ok || !slices.Equal(shape, s.Shape) {
			return fmt.Errorf("tensor %s has shape %v, the configuration says %v", s.Name, shape, s.Shape)
		}
	}
	if len(tensors) != len(specs) {
		return fmt.Errorf("there are %d tensors, the configuration has %d", len(tensors), len(specs))
	}
	return nil
}

// configOf is the config.json of src with the new dtype, all other keys as they are; or c's own JSON, if src has none.
func (c Config) configOf(src fs.FS) ([]byte, error) {
	if src == nil {
		return c.JSON()
	}
	data, err := readFile(src, "config.json")
	if errors.Is(err, fs.ErrNotExist) {
		return c.JSON()
	}
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("read config.json: %w", err)
	}
	key := "torch_dtype"
	if _, v5 := all["dtype"]; v5 {
		key = "dtype"
	}
	all["tie_word_embeddings"] = fmt.Append(nil, c.TieEmbeddings)
	delete(all, "quantization_config") // what is written is not packed
	all[key] = fmt.Appendf(nil, "%q", c.DType)
	return sortedJSON(all)
}

func copyCompanions(dir string, src fs.FS) error {
	if src == nil {
		return nil
	}
	for _, name := range companions {
		data, err := readFile(src, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeFile is durable.WriteFile for content too large to be in memory twice.
func writeFile(path string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails harmlessly after the rename
	err = errors.Join(fill(f), f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(path))
	}
	return err
}

// JSON is a config.json that transformers v4 and v5 both read, with keys sorted, of a model that is Llama in all but size: the only kind that
// is made from nothing.
func (c Config) JSON() ([]byte, error) {
	if c.Architecture != "LlamaForCausalLM" {
		return nil, fmt.Errorf("write config.json: %s: not supported; start from a folder that has one", c.Architecture)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("write config.json: %w", err)
	}
	all := map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu",
		"vocab_size": c.VocabSize, "hidden_size": c.HiddenSize, "intermediate_size": c.IntermediateSize,
		"num_hidden_layers": c.NumLayers, "num_attention_heads": c.NumHeads, "num_key_value_heads": c.NumKVHeads,
		"head_dim": c.HeadDim, "rms_norm_eps": pyFloat(c.RMSNormEps), "max_position_embeddings": c.MaxPosition,
		"rope_theta": pyFloat(c.RopeTheta), "rope_scaling": c.RopeScaling.json(),
		"tie_word_embeddings": c.TieEmbeddings, "attention_bias": c.QKVBias, "mlp_bias": c.MLPBias, "attention_dropout": pyFloat(0),
		"bos_token_id": idJSON(c.BOS), "eos_token_id": idsJSON(c.EOS), "pad_token_id": idJSON(c.Pad),
		"initializer_range": pyFloat(0.02), "pretraining_tp": 1, "use_cache": true,
	}
	if c.DType != "" {
		all["torch_dtype"] = c.DType
	}
	return sortedJSON(all)
}

func sortedJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}

// json is rope_scaling; transformers before 4.43 accepts no other keys for linear, and no integer factor.
func (r RopeScaling) json() any {
	switch r.Type {
	case "linear":
		return map[string]any{"type": r.Type, "factor": pyFloat(r.Factor)}
	case "llama3":
		return map[string]any{
			"rope_type": r.Type, "factor": pyFloat(r.Factor), "low_freq_factor": pyFloat(r.LowFreqFactor),
			"high_freq_factor": pyFloat(r.HighFreqFactor), "original_max_position_embeddings": r.OriginalMaxPosition,
		}
	}
	return nil
}

// pyFloat is a number that Python reads as a float: Go leaves out the point of a whole number, and Python tells 2 from 2.0.
type pyFloat float64

func (v pyFloat) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(float64(v))
	if err == nil && !bytes.ContainsAny(b, ".e") {
		b = append(b, ".0"...)
	}
	return b, err
}

func idJSON(id int) any {
	if id < 0 {
		return nil
	}
	return id
}

func idsJSON(ids []int) any {
	switch len(ids) {
	case 0:
		return nil
	case 1:
		return ids[0]
	}
	return ids
}
