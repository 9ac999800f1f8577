package optim

// Optimizer is AdamW with what it remembers between steps. Two replicas that took the same steps hold the same bits.
type Optimizer interface {
	// Step applies update t (1 for the first) with learning rate lr.
	Step(p, g []float32, lr float64, t int)
	// Pieces is Step cut into pieces that are independent of each other: each is to be done once, in any order, on any thread.
	Pieces(p, g []float32, lr float64, t int) []func()
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

// pieceLen is the most elements of one piece: enough to be worth a thread's while, and a multiple of block8.
const pieceLen = 1 << 15

// Step is AdamW.Step, part by part.
func (o *Plain) Step(p, g []float32, lr float64, t int) { inTurn(o.Pieces(p, g, lr, t)) }

// Pieces cuts parts at every pieceLen elements; where a vector is cut makes no difference to AdamW.Step.
func (o *Plain) Pieces(p, g []float32, lr float64, t int) (out []func()) {
	at := 0
	for _, part := range o.parts {
		rule, rate := o.rule.of(part), float32(lr*part.Rate)
		for end := at + part.Len; at < end; {
			from, to := at, min(at+pieceLen, end)
			out = append(out, func() { rule.Step(p[from:to], g[from:to], o.m[from:to], o.v[from:to], rate, t) })
			at = to
		}
	}
	return out
}

func inTurn(pieces []func()) {
	for _, f := range pieces {
		f()
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
