package export

import (
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"

	"lorad/engine/kernel"
	"lorad/model"
	"lorad/model/peft"
)

// change is what an adapter does to one linear layer.
type change struct {
	module    string // model.layers.0.self_attn.q_proj
	a, b      peft.Tensor
	magnitude []float32 // [out], DoRA's; nil without
	scale     float64
	in, out   int
}

// Adapter is an adapter with its base.
type Adapter struct {
	Config  peft.LoraConfig
	base    *model.Folder
	changes map[string]change    // by module
	whole   map[string][]float32 // tensors that were trained themselves, by their name in the base: biases, modules_to_save
	ops     kernel.Ops[float32]
}

// Open reads an adapter folder and fits it to a base: every module that it changes must be there, in its shape.
func Open(base *model.Folder, adapter fs.FS, ops kernel.Ops[float32]) (*Adapter, error) {
	cfg, tensors, err := peft.Read(adapter)
	if err != nil {
		return nil, err
	}
	a := &Adapter{Config: cfg, base: base, changes: map[string]change{}, whole: map[string][]float32{}, ops: ops}
	shapes := map[string][]int{}
	for _, s := range base.Config().Tensors() {
		shapes[s.Name] = s.Shape
	}
	if base.Config().TieEmbeddings {
		shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
	}
	names := slices.Sorted(maps.Keys(tensors))
	for _, name := range names {
		if module, _, ok := peft.Module(name); ok && shapes[module+".weight"] == nil {
			return nil, fmt.Errorf("adapter: it changes %s, which the base model does not have: it was made for another", module)
		}
	}
	for _, name := range names {
		if err := a.add(name, tensors, shapes); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// add takes one tensor of an adapter; lora_A brings the rest of its layer.
func (a *Adapter) add(name string, tensors map[string]peft.Tensor, shapes map[string][]int) error {
	t := tensors[name]
	if own, ok := peft.Trained(name); ok {
		shape, known := shapes[own]
		if !known || !slices.Equal(shape, t.Shape) {
			return fmt.Errorf("adapter: it has %s in shape %v, the base model in %v: it was made for another", own, t.Shape, shape)
		}
		a.whole[own] = t.Data
		return nil
	}
	module, isB, ok := peft.Module(name)
	if !ok || isB {
		return nil
	}
	_, nameB := peft.Names(module)
	shape, b := shapes[module+".weight"], tensors[nameB]
	if len(shape) != 2 || module == "model.embed_tokens" {
		return fmt.Errorf("adapter: it changes %s, which is no linear layer: not supported", module)
	}
	if shape[1] != t.Shape[1] || shape[0] != b.Shape[0] {
		return fmt.Errorf("adapter: %s: made for a layer of %d x %d, the base model's is %d x %d", module, b.Shape[0], t.Shape[1], shape[0], shape[1])
	}
	_, scale := a.Config.Of(module)
	a.changes[module] = change{module, t, b, tensors[peft.MagnitudeName(module)].Data, scale, shape[1], shape[0]}
	return nil
}

// modules lists what is changed, sorted.
func (a *Adapter) modules() []string {
	var out []string
	for m := range a.changes {
		out = append(out, m)
	}
	slices.Sort(out)
	return out
}

// delta is what is added to the weight w, [out, in]: scale*B*A. With magnitudes, each row of w + scale*B*A is brought to its length.
func (a *Adapter) delta(c change, w []float32) []float32 {
	r := c.a.Shape[0]
	d := make([]float32, c.out*c.in)
	a.ops.Gemm(false, false, c.out, c.in, r, c.b.Data, r, c.a.Data, c.in, d, c.in, false)
	for i := range d {
		d[i] *= float32(c.scale)
	}
	for j, length := range c.magnitude {
		row, was := d[j*c.in:(j+1)*c.in], w[j*c.in:(j+1)*c.in]
		for i := range row {
			row[i] += was[i]
		}
		gain := float64(length) / math.Sqrt(squares(row))
		for i := range row {
			row[i] = float32(gain*float64(row[i]) - float64(was[i]))
		}
	}
	return d
}

// squares is the sum of the squares, in float64.
func squares(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return s
}

func finite(x []float32) bool {
	for _, v := range x {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return false
		}
	}
	return true
}
