package peft

import (
	"errors"
	"fmt"
	"math"

	"lorad/model/safetensors"
)

// Subtract turns an adapter of a changed base into one of the original base. With W = R + s*B0 A0 the base and W + D = R + s*B A the
// trained model (PiSSA), D = s*(B A - B0 A0) is a plain LoRA of twice the rank and the same scale, [B, -B0] [A; A0]: what PEFT's
// save_pretrained(path_initial_model_for_weight_conversion=...) writes. initial is where each tensor of trained started.
//
// Why not the adapter itself beside its residual base, which PEFT can also have: then the folder would be of no use with the model that
// everybody has, nor could it be merged, served or compared with others.
func Subtract(c LoraConfig, trained []safetensors.Tensor, initial [][]float32) (LoraConfig, []safetensors.Tensor, error) {
	if len(initial) != len(trained) {
		return c, nil, errors.New("convert adapter: trained and initial tensors differ in number")
	}
	c = c.doubled()
	out := make([]safetensors.Tensor, len(trained))
	for i, t := range trained {
		if len(initial[i]) != len(t.Data) {
			return c, nil, fmt.Errorf("convert adapter: %s: trained and initial values differ in number", t.Name)
		}
		switch _, p := parse(t.Name); p {
		case matrixA:
			t.Data = append(append(make([]float32, 0, 2*len(t.Data)), t.Data...), initial[i]...)
			t.Shape = []int{2 * t.Shape[0], t.Shape[1]}
		case matrixB:
			t.Data = beside(t.Data, initial[i], t.Shape[1])
			t.Shape = []int{t.Shape[0], 2 * t.Shape[1]}
		}
		out[i] = t
	}
	return c, out, nil
}

// beside puts the rows of -b0 after those of b.
func beside(b, b0 []float32, r int) []float32 {
	out := make([]float32, 0, 2*len(b))
	for i := 0; i < len(b); i += r {
		out = append(out, b[i:i+r]...)
		for _, v := range b0[i : i+r] {
			out = append(out, -v)
		}
	}
	return out
}

// doubled is the configuration of an adapter of twice the rank that scales as this one does and starts nowhere in particular.
func (c LoraConfig) doubled() LoraConfig {
	factor := 2.0
	if c.UseRSLoRA {
		factor = math.Sqrt2
	}
	c.Init, c.R, c.Alpha = "", 2*c.R, factor*c.Alpha
	ranks, alphas := map[string]int{}, map[string]float64{}
	for key, r := range c.RankPattern {
		ranks[key] = 2 * r
	}
	for key, alpha := range c.AlphaPattern {
		alphas[key] = factor * alpha
	}
	c.RankPattern, c.AlphaPattern = ranks, alphas
	return c
}
