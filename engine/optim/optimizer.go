package optim

// Optimizer is AdamW with what it remembers between steps. Two replicas that took the same steps hold the same bits.
type Optimizer interface {
	// Step applies update t (1 for the first) with learning rate lr.
	Step(p, g []float32, lr float64, t int)
	// Visit passes all state in a fixed order, to be hashed, written or overwritten in place.
	Visit(floats func([]float32), bytes func([]byte))
	// Exponents writes how large the gradients of each parameter have been, as a power of two, after t updates.
	Exponents(dst []int8, t int)
	// Fresh is the same optimiser before its first step.
	Fresh() Optimizer
}

// Part is one tensor of the flat vector, in its order.
type Part struct {
	Len     int
	Rate    float64 // factor of the learning rate; LoRA+ (Hayou et al. 2024) lets lora_B learn faster
	NoDecay bool    // no weight decay: biases and norms, as transformers' Trainer has it
}

// Plain keeps both moments in f32.
type Plain struct {
	rule  AdamW
	parts []Part // neighbours that are stepped alike are one
	m, v  []float32
}

// NewPlain makes the state of a vector that consists of parts.
func NewPlain(rule AdamW, parts []Part) *Plain {
	o := &Plain{rule: rule}
	n := 0
	for _, p := range parts {
		n += p.Len
		if last := len(o.parts) - 1; last >= 0 && o.parts[last].Rate == p.Rate && o.parts[last].NoDecay == p.NoDecay {
			o.parts[last].Len += p.Len
		} else {
			o.parts = append(o.parts, p)
		}
	}
	o.m, o.v = make([]float32, n), make([]float32, n)
	return o
}

// Step is AdamW.Step, part by part.
func (o *Plain) Step(p, g []float32, lr float64, t int) {
	at := 0
	for _, part := range o.parts {
		to := at + part.Len
		o.rule.of(part).Step(p[at:to], g[at:to], o.m[at:to], o.v[at:to], float32(lr*part.Rate), t)
		at = to
	}
}

func (o AdamW) of(p Part) AdamW {
	if p.NoDecay {
		o.WeightDecay = 0
	}
	return o
}

// Visit passes the first moments, then the second.
func (o *Plain) Visit(floats func([]float32), _ func([]byte)) {
	floats(o.m)
	floats(o.v)
}

// Fresh has moments of zero.
func (o *Plain) Fresh() Optimizer { return NewPlain(o.rule, o.parts) }
