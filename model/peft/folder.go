package peft

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lorad/internal/durable"
	"lorad/model/safetensors"
)

const (
	configFile  = "adapter_config.json"
	weightsFile = "adapter_model.safetensors"

	// prefix stands before the module path in tensor names: PeftModel holds a LoraModel, which holds the base.
	prefix  = "base_model.model."
	suffixA = ".lora_A.weight"
	suffixB = ".lora_B.weight"
	// suffixMagnitude ends the name of DoRA's lengths; suffixBias that of a bias which is trained along with its layer's adapter.
	suffixMagnitude = ".lora_magnitude_vector"
	suffixBias      = ".base_layer.bias"
)

// Names gives the tensor names of the adapter of one module: A is [r, in], B is [out, r].
func Names(module string) (a, b string) {
	return prefix + module + suffixA, prefix + module + suffixB
}

// MagnitudeName is the name of DoRA's lengths of a module's rows, [out].
func MagnitudeName(module string) string { return prefix + module + suffixMagnitude }

// BiasName is the name of the bias of an adapted module that is trained, [out].
func BiasName(module string) string { return prefix + module + suffixBias }

// SavedName is the name of a tensor of a module that is trained whole: tensor is its name in the base.
func SavedName(tensor string) string { return prefix + tensor }

// part says what a tensor of an adapter is.
type part int

const (
	unknown part = iota
	matrixA
	matrixB
	magnitude
	bias
	saved // the module is that of the tensor
)

// parse finds the module that a tensor belongs to.
func parse(tensor string) (module string, p part) {
	rest, ok := strings.CutPrefix(tensor, prefix)
	if !ok {
		return "", unknown
	}
	for suffix, p := range map[string]part{suffixA: matrixA, suffixB: matrixB, suffixMagnitude: magnitude, suffixBias: bias} {
		if m, ok := strings.CutSuffix(rest, suffix); ok {
			return m, p
		}
	}
	for _, suffix := range []string{".weight", ".bias"} {
		if m, ok := strings.CutSuffix(rest, suffix); ok {
			return m, saved
		}
	}
	return "", unknown
}

// Module is the reverse of Names; isB tells the two apart, ok is false for a name that is neither.
func Module(tensor string) (module string, isB, ok bool) {
	module, p := parse(tensor)
	return module, p == matrixB, p == matrixA || p == matrixB
}

// Trained is the name in the base of a tensor that the adapter holds whole: a bias, or one of modules_to_save.
func Trained(tensor string) (string, bool) {
	switch module, p := parse(tensor); p {
	case bias:
		return module + ".bias", true
	case saved:
		return strings.TrimPrefix(tensor, prefix), true
	}
	return "", false
}

// Tensor is one matrix of an adapter, row-major.
type Tensor struct {
	Shape []int
	Data  []float32
}

// Write writes adapter_model.safetensors and adapter_config.json into dir, each wholly or not at all. The configuration comes last:
// a folder that has one has the weights. "all-linear" is written as the names it came to mean, as PEFT does.
func Write(dir string, c LoraConfig, tensors []safetensors.Tensor) error {
	if err := write(dir, c, tensors); err != nil {
		return fmt.Errorf("write adapter %s: %w", dir, err)
	}
	return nil
}

func write(dir string, c LoraConfig, tensors []safetensors.Tensor) error {
	shapes := make(map[string][]int, len(tensors))
	for _, t := range tensors {
		shapes[t.Name] = t.Shape
	}
	modules, err := c.modules(shapes)
	if err != nil {
		return err
	}
	if c.allLinear() {
		c.TargetModules = lastNames(modules)
	}
	config, err := c.JSON()
	if err != nil {
		return err
	}
	var weights bytes.Buffer
	if err := safetensors.Write(&weights, tensors, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, weightsFile), weights.Bytes(), 0o644); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, configFile), config, 0o644)
}

// lastNames reduces module paths to their last segments. For Llama those name the same layers as the paths do.
func lastNames(modules []string) []string {
	var names []string
	for _, m := range modules {
		names = append(names, m[strings.LastIndexByte(m, '.')+1:])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Read reads an adapter folder. Every tensor must be the A or B of a module that the configuration targets, with its rank.
func Read(fsys fs.FS) (LoraConfig, map[string]Tensor, error) {
	c, tensors, err := read(fsys)
	if err != nil {
		return LoraConfig{}, nil, fmt.Errorf("read adapter: %w", err)
	}
	return c, tensors, nil
}

func read(fsys fs.FS) (LoraConfig, map[string]Tensor, error) {
	data, err := fs.ReadFile(fsys, configFile)
	if err != nil {
		return LoraConfig{}, nil, err
	}
	c, err := ParseConfig(data)
	if err != nil {
		return c, nil, err
	}
	f, err := safetensors.OpenFS(fsys, weightsFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; save the adapter with safe_serialization", err)
	}
	if err != nil {
		return c, nil, err
	}
	defer f.Close()
	shapes := map[string][]int{}
	for _, name := range f.Names() {
		_, shapes[name], _ = f.Info(name)
	}
	if _, err := c.modules(shapes); err != nil {
		return c, nil, err
	}
	tensors := make(map[string]Tensor, len(shapes))
	for _, name := range f.Names() {
		data, shape, err := f.F32(name)
		if err != nil {
			return c, nil, err
		}
		tensors[name] = Tensor{shape, data}
	}
	return c, tensors, nil
}

// modules checks names and shapes of an adapter's tensors and lists its modules in order.
func (c *LoraConfig) modules(shapes map[string][]int) ([]string, error) {
	var modules []string
	for _, name := range slices.Sorted(maps.Keys(shapes)) { // so that of several faults it is always the same that is said
		module, p := parse(name)
		if !c.expects(module, p) {
			return nil, fmt.Errorf("tensor %q is not lora_A or lora_B of a target module, nor anything else that the configuration asks for", name)
		}
		if !c.fits(module, p, shapes[name], shapes) {
			r, _ := c.Of(module)
			return nil, fmt.Errorf("tensor %q has shape %v, which does not fit rank %d", name, shapes[name], r)
		}
		a, b := Names(module)
		if p != saved && (shapes[a] == nil || shapes[b] == nil) {
			return nil, fmt.Errorf("module %q has only one of lora_A and lora_B", module)
		}
		if p == matrixA && c.UseDoRA && shapes[MagnitudeName(module)] == nil {
			return nil, fmt.Errorf("module %q has no lora_magnitude_vector, though use_dora is set", module)
		}
		if p == matrixA {
			modules = append(modules, module)
		}
	}
	if len(modules) == 0 {
		return nil, errors.New("there are no tensors in it")
	}
	slices.Sort(modules)
	return modules, nil
}

// expects says whether the configuration asks for a part of a module.
func (c *LoraConfig) expects(module string, p part) bool {
	switch p {
	case matrixA, matrixB:
		return c.Match(module)
	case magnitude:
		return c.UseDoRA && c.Match(module)
	case bias:
		return c.Bias == BiasLoraOnly && c.Match(module)
	case saved:
		return c.Saved(module)
	}
	return false
}

// fits compares a shape with the module's rank and with the shape of lora_B.
func (c *LoraConfig) fits(module string, p part, shape []int, shapes map[string][]int) bool {
	r, _ := c.Of(module)
	_, b := Names(module)
	switch p {
	case matrixA:
		return len(shape) == 2 && shape[0] == r
	case matrixB:
		return len(shape) == 2 && shape[1] == r
	case magnitude, bias:
		return len(shape) == 1 && (len(shapes[b]) != 2 || shape[0] == shapes[b][0])
	}
	return true
}
