package export

import (
	"fmt"
	"io/fs"
	"math"
	"slices"

	"lorad/engine/kernel"
	"lorad/model"
	"lorad/model/peft"
)

// change is what an adapter does to one linear layer.
type change struct {
	module  string // model.layers.0.self_attn.q_proj
	a, b    peft.Tensor
	scale   float64
	in, out int
}

// Adapter is an adapter with its base.
type Adapter struct {
	Config  peft.LoraConfig
	base    *model.Folder
	changes map[string]change // by module
	ops     kernel.Ops[float32]
}

// Open reads an adapter folder and fits it to a base: every module that it changes must be there, in its shape.
func Open(base *model.Folder, adapter fs.FS, ops kernel.Ops[float32]) (*Adapter, error) {
	cfg, tensors, err := peft.Read(adapter)
	if err != nil {
		return nil, err
	}
	a := &Adapter{Config: cfg, base: base, changes: map[string]change{}, ops: ops}
	shapes := map[string][]int{}
	for _, s := range base.Config().Tensors() {
		shapes[s.Name] = s.Shape
	}
	if base.Config().TieEmbeddings {
		shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
	}
	for name, t := range tensors {
		module, isB, ok := peft.Module(name)
		if !ok || isB {
			continue
		}
		_, nameB := peft.Names(module)
		shape, known := shapes[module+".weight"]
		b := tensors[nameB]
		switch {
		case !known:
			return nil, fmt.Errorf("adapter: it changes %s, which the base model does not have: it was made for another", module)
		case shape[1] != t.Shape[1] || shape[0] != b.Shape[0]:
			return nil, fmt.Errorf("adapter: %s: made for a layer of %d x %d, the base model's is %d x %d", module, b.Shape[0], t.Shape[1], shape[0], shape[1])
		}
		a.changes[module] = change{module, t, b, cfg.Scale(), shape[1], shape[0]}
	}
	return a, nil
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

// delta is scale*B*A, [out, in].
func (a *Adapter) delta(c change) []float32 {
	r := c.a.Shape[0]
	d := make([]float32, c.out*c.in)
	a.ops.Gemm(false, false, c.out, c.in, r, c.b.Data, r, c.a.Data, c.in, d, c.in, false)
	for i := range d {
		d[i] *= float32(c.scale)
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
