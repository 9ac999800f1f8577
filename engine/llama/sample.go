package llama

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"lorad/engine"
	"lorad/engine/kernel"
	"lorad/engine/lora"
)

// CheckSampling refuses values that nothing can be drawn with.
func CheckSampling(opt engine.Sampling) error {
	if !(opt.Temperature >= 0) || !(opt.TopP >= 0 && opt.TopP <= 1) {
		return fmt.Errorf("llama: generate: temperature %v, top_p %v: want a temperature of 0 or more and a top_p in 0..1", opt.Temperature, opt.TopP)
	}
	return nil
}

// Pick chooses the index of the next token: the largest logit, lowest index first, or a draw for position at.
func Pick[T kernel.Float](logits []T, opt engine.Sampling, at int) int32 {
	if opt.Temperature == 0 {
		return argmax(logits)
	}
	top := float64(logits[argmax(logits)])
	order, p := make([]int32, len(logits)), make([]float64, len(logits))
	var sum float64
	for i, l := range logits {
		order[i], p[i] = int32(i), math.Exp((float64(l)-top)/opt.Temperature)
		sum += p[i]
	}
	if opt.TopP > 0 && opt.TopP < 1 {
		order, sum = nucleus(order, p, sum, opt.TopP)
	}
	w, _, _, _ := lora.NewPhilox(opt.Seed).At(uint32(at), 0, 2, 0)
	left := lora.Uniform(w) * sum
	for _, i := range order {
		if left -= p[i]; left < 0 {
			return i
		}
	}
	return order[len(order)-1]
}

// nucleus keeps the most probable tokens until they hold topP of the mass; the token that reaches it is kept.
func nucleus(order []int32, p []float64, sum, topP float64) ([]int32, float64) {
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(p[b], p[a]) })
	var kept float64
	for i, t := range order {
		if kept += p[t]; kept >= topP*sum {
			return order[:i+1], kept
		}
	}
	return order, kept
}

func argmax[T kernel.Float](x []T) int32 {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return int32(best)
}
