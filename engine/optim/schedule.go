package optim

// Kinds of Schedule, in the words of the transformers Trainer.
const (
	Constant = "constant"
	Linear   = "linear"
	Cosine   = "cosine"
)

// Schedule is the learning rate over the steps of a run: linear warm-up from 0, then the kind's decay. Formulas are
// those of transformers' get_{constant,linear,cosine}_schedule_with_warmup. With warm-up the first update has rate 0,
// and the last one does not reach the end of the decay: both are what Hugging Face's Trainer does.
type Schedule struct {
	Kind     string  // Constant, Linear or Cosine; empty is Constant
	Peak     float64 // rate at the end of the warm-up
	Warmup   int     // steps
	Total    int     // steps of the whole run, warm-up included
	MinRatio float64 // floor of the decay as a share of Peak, as min_lr_rate of transformers' cosine_with_min_lr; 0 = none
}

// LR is the rate of step (0 for the first).
func (s Schedule) LR(step int) float64 {
	if step < s.Warmup {
		return s.Peak * (float64(step) / float64(max(1, s.Warmup)))
	}
	decay := s.decay(step)
	return s.Peak * (float64(decay*(1-s.MinRatio)) + s.MinRatio)
}

// decay runs from 1 at the end of the warm-up to 0 at Total.
func (s Schedule) decay(step int) float64 {
	span := float64(max(1, s.Total-s.Warmup))
	switch s.Kind {
	case Linear:
		return max(0, float64(s.Total-step)/span)
	case Cosine:
		progress := min(1, float64(step-s.Warmup)/span)
		return 0.5 * (1 + cosPi(progress))
	default:
		return 1
	}
}

// cosPi is cos(pi*x) for 0 <= x <= 1 within 2^-51: folded to a quarter turn at most, then the Taylor series of sine
// or cosine. Not math.Cos: its last bit depends on whether the machine fuses multiply-add, and the learning rate
// must be the same on all of them.
func cosPi(x float64) float64 {
	const pi = 3.14159265358979323846
	switch {
	case x > 0.75:
		return -cosTaylor(float64(pi * (1 - x)))
	case x >= 0.25:
		return sinTaylor(float64(pi * (0.5 - x)))
	default:
		return cosTaylor(float64(pi * x))
	}
}

// cosTaylor is cos(a) for |a| <= pi/4: the first term left out is a^18/18! < 3e-18.
func cosTaylor(a float64) float64 {
	z := float64(a * a)
	r := 1.0
	for n := 16; n > 0; n -= 2 {
		r = 1 - float64(float64(z/float64(n*(n-1)))*r)
	}
	return r
}

// sinTaylor is sin(a) for |a| <= pi/4: the first term left out is a^19/19! < 1e-19.
func sinTaylor(a float64) float64 {
	z := float64(a * a)
	r := 1.0
	for n := 17; n > 1; n -= 2 {
		r = 1 - float64(float64(z/float64(n*(n-1)))*r)
	}
	return float64(a * r)
}
