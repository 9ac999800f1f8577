package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"lorad/model/tokenizer"
)

// maxJSON bounds the text files of a folder; the largest tokenizer.json in use has some 20 MB.
const maxJSON = 256 << 20

// Folder is an opened Hugging Face model folder. It is safe for concurrent use.
type Folder struct {
	fsys    fs.FS
	config  Config
	weights *weights // nil when the folder has none
}

// Open reads the configuration and the headers of the weights, and checks that the weights are those the configuration asks for.
// Weights may be absent (tokenizer and configuration alone are enough to prepare data). Close releases the open files.
func Open(fsys fs.FS) (*Folder, error) {
	f := &Folder{fsys: fsys}
	if err := f.open(); err != nil {
		f.Close()
		return nil, fmt.Errorf("open model folder: %w", err)
	}
	return f, nil
}

func (f *Folder) open() error {
	data, err := readFile(f.fsys, "config.json")
	if err != nil {
		return fmt.Errorf("%w; a Hugging Face model folder has config.json, tokenizer.json and *.safetensors", err)
	}
	if f.config, err = ReadConfig(data); err != nil {
		return err
	}
	if err := f.readGeneration(); err != nil {
		return err
	}
	if f.weights, err = openWeights(f.fsys); err != nil || f.weights == nil {
		return err
	}
	return f.checkShapes()
}

// readGeneration takes the special ids of generation_config.json, which win over config.json's when text is generated.
func (f *Folder) readGeneration() error {
	var g struct {
		BOS json.RawMessage `json:"bos_token_id"`
		EOS json.RawMessage `json:"eos_token_id"`
		Pad json.RawMessage `json:"pad_token_id"`
	}
	if err := readJSON(f.fsys, "generation_config.json", &g); err != nil {
		return err
	}
	eos, err1 := parseIDs(g.EOS, "eos_token_id")
	bos, err2 := parseIDs(g.BOS, "bos_token_id")
	pad, err3 := parseIDs(g.Pad, "pad_token_id")
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("generation_config.json: %w", err)
	}
	c := &f.config
	if len(eos) > 0 {
		c.EOS = eos
	}
	if c.BOS < 0 && len(bos) > 0 {
		c.BOS = bos[0]
	}
	if c.Pad < 0 && len(pad) > 0 {
		c.Pad = pad[0]
	}
	if err := c.validateIDs(); err != nil {
		return fmt.Errorf("generation_config.json: %w", err)
	}
	return nil
}

func (f *Folder) checkShapes() error {
	for _, want := range f.config.Tensors() {
		if f.weights.at[want.Name+packedState] != nil {
			if err := f.weights.checkPacked(want); err != nil {
				return err
			}
			continue
		}
		shape, ok := f.weights.shape(want.Name)
		if !ok {
			return fmt.Errorf("weights: %s is missing, though config.json asks for it: %w", want.Name, fs.ErrNotExist)
		}
		if !slices.Equal(shape, want.Shape) {
			return fmt.Errorf("weights: %s has shape %v, config.json says %v", want.Name, shape, want.Shape)
		}
	}
	return nil
}

// Config is the shape of the model.
func (f *Folder) Config() Config { return f.config }

// HasWeights reports whether the folder holds safetensors weights.
func (f *Folder) HasWeights() bool { return f.weights != nil }

// Tensor reads one weight by its Hugging Face name, widened to f32, row-major. The head of a tied model is its embedding.
// A name that is not there is fs.ErrNotExist.
func (f *Folder) Tensor(name string) (data []float32, shape []int, err error) {
	if f.weights == nil {
		return nil, nil, fmt.Errorf("read tensor %q: the folder has no model.safetensors; save the model with safe_serialization: %w", name, fs.ErrNotExist)
	}
	return f.weights.tensor(f.stored(name))
}

// Tokenizer loads tokenizer.json, with the special tokens that tokenizer_config.json names, or else special_tokens_map.json.
func (f *Folder) Tokenizer() (*tokenizer.Tokenizer, error) {
	data, err := readFile(f.fsys, "tokenizer.json")
	if err != nil {
		return nil, fmt.Errorf("open tokenizer: %w; save the tokenizer with a fast tokenizer class", err)
	}
	config, err := readFile(f.fsys, "tokenizer_config.json")
	if errors.Is(err, fs.ErrNotExist) {
		config, err = readFile(f.fsys, "special_tokens_map.json")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open tokenizer: %w", err)
	}
	return tokenizer.Load(data, config)
}

// ChatTemplate is the Jinja template that turns messages into text, "" when the folder has none. chat_template.jinja wins over
// tokenizer_config.json; of several named templates it is the one named "default".
func (f *Folder) ChatTemplate() string {
	if data, err := readFile(f.fsys, "chat_template.jinja"); err == nil {
		return string(data)
	}
	var c struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err := readJSON(f.fsys, "tokenizer_config.json", &c); err != nil || isNull(c.Template) {
		return ""
	}
	var one string
	if json.Unmarshal(c.Template, &one) == nil {
		return one
	}
	var named []struct{ Name, Template string }
	if json.Unmarshal(c.Template, &named) != nil {
		return ""
	}
	for _, t := range named {
		if t.Name == "default" {
			return t.Template
		}
	}
	return ""
}

// Close releases the weight files. Tensor fails after it.
func (f *Folder) Close() error {
	if f.weights == nil {
		return nil
	}
	return f.weights.close()
}

// readJSON decodes a file that may be absent, in which case v is left as it is.
func readJSON(fsys fs.FS, name string, v any) error {
	data, err := readFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxJSON {
		return nil, fmt.Errorf("%s: %d bytes are over the limit of %d", name, info.Size(), maxJSON)
	}
	return fs.ReadFile(fsys, name)
}
