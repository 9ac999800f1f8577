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

// cache holds the keys (rotated) and values of all positions so far, per layer [room, kvHeads*headDim].
type cache[T kernel.Float] struct {
	k, v [][]T
}

func newCache[T kernel.Float](layers, size int) *cache[T] {
	c := &cache[T]{make([][]T, layers), make([][]T, layers)}
	for i := range layers {
		c.k[i], c.v[i] = make([]T, size), make([]T, size)
	}
	return c
}

// reserve makes room for size elements per layer, twice as much as before at least.
func (c *cache[T]) reserve(size int) {
	if size <= len(c.k[0]) {
		return
	}
	for i := range c.k {
		c.k[i] = append(c.k[i], make([]T, max(size, 2*len(c.k[i]))-len(c.k[i]))...)
		c.v[i] = append(c.v[i], make([]T, max(size, 2*len(c.v[i]))-len(c.v[i]))...)
	}
}

// Generate continues prompt until a stop token or MaxNew tokens. The prompt is computed at once, then one position at a time.
func (m *Model[T]) Generate(prompt []int32, opt engine.Sampling) ([]int32, error) {
	if len(prompt) == 0 {
		return nil, fmt.Errorf("llama: generate: the prompt is empty; begin with the model's BOS token")
	}
	if !(opt.Temperature >= 0) || opt.TopP < 0 || opt.TopP > 1 {
		return nil, fmt.Errorf("llama: generate: temperature %v, top_p %v: want a temperature of 0 or more and a top_p in 0..1", opt.Temperature, opt.TopP)
	}
	kvd := m.cfg.NumKVHeads * m.cfg.HeadDim
	c := newCache[T](len(m.layers), (len(prompt)+min(max(opt.MaxNew, 0), 256))*kvd)
	var out []int32
	feed, past := prompt, 0
	for range opt.MaxNew {
		c.reserve((past + len(feed)) * kvd)
		logits, err := m.extend(c, feed, past)
		if err != nil {
			return nil, err
		}
		next := pick(logits, opt, len(out))
		if slices.Contains(opt.Stop, next) {
			break
		}
		out, past = append(out, next), past+len(feed)
		feed = out[len(out)-1:]
	}
	return out, nil
}

// extend runs new tokens of one sequence after past others and returns the logits of the last.
func (m *Model[T]) extend(c *cache[T], tokens []int32, past int) ([]T, error) {
	n := len(tokens)
	p := &pass{rows: n, past: past, tokens: tokens, starts: []int32{0, int32(n)}}
	for i, t := range tokens {
		if t < 0 || int(t) >= m.cfg.VocabSize {
			return nil, fmt.Errorf("llama: generate: token %d at %d: the vocabulary has %d; use the model's own tokenizer", t, i, m.cfg.VocabSize)
		}
	}
	m.reservePositions(past + n)
	m.reserve(n, false)
	m.run(p, c, false)
	return m.project([]int32{int32(n - 1)}), nil
}

// pick chooses the index of the next token: the largest logit, lowest index first, or a draw for position at.
func pick[T kernel.Float](logits []T, opt engine.Sampling, at int) int32 {
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
