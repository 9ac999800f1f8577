package llama

import "lorad/engine/kernel"

// Gemma 2 keeps attention's scores and the logits within a cap: x becomes cap*tanh(x/cap).

// softcap writes cap*tanh(scale*x/cap) over x.
func softcap[T kernel.Float](x []T, scale, cap T) {
	scale /= cap
	for i, v := range x {
		x[i] = cap * tanh(scale*v)
	}
}

// uncap takes the gradient dx of capped values to that of the values before: d = 1 - (capped/cap)^2, times scale.
func uncap[T kernel.Float](dx, capped []T, scale, cap T) {
	for i, v := range capped {
		t := v / cap
		dx[i] *= scale * (1 - T(t*t))
	}
}

// tanh is 1 - 2/(e^(2x)+1). Near 0 that would lose what x has small, so there it is x's series, whose next term is below a unit in the last
// place of float32. Nothing is fused, so that the bits are the same on every machine.
func tanh[T kernel.Float](x T) T {
	if x > -0.06 && x < 0.06 {
		s := x * x
		return x * (1 - T(s*(T(1)/3-T(s*(T(2)/15-T(s*(T(17)/315-T(s*(T(62)/2835)))))))))
	}
	return 1 - 2/(kernel.Exp(2*x)+1)
}

// capLogits caps logits, if the model does.
func (m *Model[T]) capLogits(x []T) {
	if m.cfg.LogitSoftcap > 0 {
		softcap(x, 1, T(m.cfg.LogitSoftcap))
	}
}
