package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"lorad/model/safetensors"
)

// Packed is the weight of a linear layer as bitsandbytes stores it in NF4: four bits a value, in blocks that share a scale. Its parts are as
// the file has them; package engine/quant knows what they mean and checks that they fit together.
type Packed struct {
	Shape  []int  // [out, in]
	DType  string // of the values before they were packed: bfloat16, float16 or float32
	Codes  []byte
	Block  int
	Absmax []float32     // the scales; nil when they are packed themselves
	Nested *PackedScales // double quantisation
}

// PackedScales are scales in 8-bit codes of a map, with scales of their own.
type PackedScales struct {
	Codes  []byte
	Block  int
	Absmax []float32
	Map    []float32 // [256]
	Offset float32
}

// Names of the tensors beside a packed weight.
const (
	packedState  = ".quant_state.bitsandbytes__nf4"
	packedAbsmax = ".absmax"
	nestedAbsmax = ".nested_absmax"
	nestedMap    = ".nested_quant_map"
)

// quantState is the JSON in quant_state.bitsandbytes__nf4.
type quantState struct {
	QuantType    string  `json:"quant_type"`
	Block        int     `json:"blocksize"`
	DType        string  `json:"dtype"`
	Shape        []int   `json:"shape"`
	NestedBlock  int     `json:"nested_blocksize"`
	NestedOffset float32 `json:"nested_offset"`
}

// jsonQuantization is the quantization_config of config.json.
type jsonQuantization struct {
	Method   string `json:"quant_method"`
	FourBit  bool   `json:"load_in_4bit"`
	EightBit bool   `json:"load_in_8bit"`
	Type     string `json:"bnb_4bit_quant_type"`
	Storage  string `json:"bnb_4bit_quant_storage"`
}

func (j *jsonConfig) checkQuantization() error {
	if isNull(j.Quantization) {
		return nil
	}
	var q jsonQuantization
	if err := json.Unmarshal(j.Quantization, &q); err != nil {
		return fmt.Errorf("quantization_config: %w", err)
	}
	const fix = "supported: bitsandbytes' 4-bit nf4 in uint8, or use the model's f32, f16 or bf16 folder"
	switch {
	case q.Method != "bitsandbytes":
		return fmt.Errorf("quantization_config: quant_method %q is not supported; %s", q.Method, fix)
	case q.EightBit || !q.FourBit:
		return fmt.Errorf("quantization_config: 8-bit weights are not supported; %s", fix)
	case q.Type != "nf4":
		return fmt.Errorf("quantization_config: bnb_4bit_quant_type %q is not supported; %s", q.Type, fix)
	case q.Storage != "" && q.Storage != "uint8":
		return fmt.Errorf("quantization_config: bnb_4bit_quant_storage %q is not supported; %s", q.Storage, fix)
	}
	return nil
}

// Packed reads a weight that is stored in NF4. A name that is not there, or not packed, is fs.ErrNotExist.
func (f *Folder) Packed(name string) (Packed, error) {
	if f.weights == nil || f.weights.at[name+packedState] == nil {
		return Packed{}, fmt.Errorf("read packed weight %q: %w", name, fs.ErrNotExist)
	}
	p, err := f.weights.packed(name)
	if err != nil {
		return p, fmt.Errorf("read packed weight %q: %w", name, err)
	}
	return p, nil
}

func (w *weights) packed(name string) (Packed, error) {
	s, err := w.quantState(name)
	if err != nil {
		return Packed{}, err
	}
	p := Packed{Shape: s.Shape, DType: s.DType, Block: s.Block}
	if p.Codes, err = w.bytes(name); err != nil {
		return p, err
	}
	if w.at[name+nestedAbsmax] == nil {
		p.Absmax, _, err = w.tensor(name + packedAbsmax)
		return p, err
	}
	n := &PackedScales{Block: s.NestedBlock, Offset: s.NestedOffset}
	var errs [3]error
	n.Codes, errs[0] = w.bytes(name + packedAbsmax)
	n.Absmax, _, errs[1] = w.tensor(name + nestedAbsmax)
	n.Map, _, errs[2] = w.tensor(name + nestedMap)
	p.Nested = n
	return p, errors.Join(errs[:]...)
}

func (w *weights) quantState(name string) (quantState, error) {
	var s quantState
	raw, err := w.bytes(name + packedState)
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	switch {
	case err != nil:
		return s, fmt.Errorf("%s: %w", packedState[1:], err)
	case s.QuantType != "nf4" || len(s.Shape) != 2 || s.Shape[0] < 1 || s.Shape[1] < 1:
		return s, fmt.Errorf("%s: quant_type %q, shape %v: want nf4 and the two sides of a matrix", packedState[1:], s.QuantType, s.Shape)
	}
	return s, nil
}

func (w *weights) bytes(name string) ([]byte, error) {
	f := w.at[name]
	if f == nil {
		return nil, fmt.Errorf("read tensor %q: %w", name, fs.ErrNotExist)
	}
	b, _, err := f.Bytes(name)
	return b, err
}

// checkPacked compares a packed weight, of which the header alone is read, with what the configuration asks for.
func (w *weights) checkPacked(want TensorSpec) error {
	s, err := w.quantState(want.Name)
	if err != nil {
		return fmt.Errorf("weights: %s: %w", want.Name, err)
	}
	if !slices.Equal(s.Shape, want.Shape) {
		return fmt.Errorf("weights: %s has shape %v, config.json says %v", want.Name, s.Shape, want.Shape)
	}
	return nil
}

// Read reads values first .. first+len(dst) of a weight, widened to f32. It serves whoever keeps weights in a smaller form than f32.
func (f *Folder) Read(name string, first int, dst []float32) error {
	name = f.stored(name)
	if f.DType(name) == "" {
		return fmt.Errorf("read tensor %q: the model has no such weight: %w", name, fs.ErrNotExist)
	}
	return f.weights.at[name].ReadF32(name, first, dst)
}

// Raw reads a weight as it is stored.
func (f *Folder) Raw(name string) ([]byte, safetensors.DType, []int, error) {
	name = f.stored(name)
	if f.DType(name) == "" {
		return nil, "", nil, fmt.Errorf("read tensor %q: the model has no such weight: %w", name, fs.ErrNotExist)
	}
	return f.weights.at[name].Raw(name)
}

// DType is the type that a weight is stored in, "" for one that is not there.
func (f *Folder) DType(name string) safetensors.DType {
	name = f.stored(name)
	if f.weights == nil || f.weights.at[name] == nil {
		return ""
	}
	d, _, _ := f.weights.at[name].Info(name)
	return d
}

// stored is the name that a weight has in the files: the head of a tied model is its embedding.
func (f *Folder) stored(name string) string {
	if name == "lm_head.weight" && f.config.TieEmbeddings {
		return "model.embed_tokens.weight"
	}
	return name
}
