// Package optim holds the optimiser's arithmetic: AdamW, clipping by the global norm and learning-rate schedules.
//
// Every node applies the same summed gradient to its own replica of the parameters, so these few lines must give the
// same bits on every machine: a replica that differs in one bit is a forked run. Hence the rules here:
//
//   - IEEE mul, add, div and sqrt only, each rounded once. Go may fuse x*y+z on arm64 or with GOAMD64=v3; an explicit
//     conversion, float32(x*y)+z, forbids it (Go specification, "Floating-point operators").
//   - No libm: math.Pow and math.Cos are assembly on some machines and may be fused on others. The bias correction
//     needs integer powers only, and the cosine of a half turn is a short polynomial (see cosPi).
//   - A fixed order wherever numbers are added up (GlobalNorm).
//
// Steps are elementwise, so a caller may cut the vectors into pieces and run them on as many threads as it likes; the
// package itself starts none. Moments are plain slices owned by the caller: it has to checkpoint them anyway.
package optim

import (
	"math"
	"strconv"
)

// AdamW is Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW computes it with
// amsgrad, maximize and fused off.
type AdamW struct {
	Beta1, Beta2, Eps, WeightDecay float32
}

// Step applies update t (1 for the first) to the parameters p with the gradient g, first moment m and second moment
// v, all of one length; m and v start at zero. In torch's order:
//
//	p *= 1 - lr*decay
//	m += (1-b1) * (g - m)
//	v  = b2*v + (1-b2)*g*g
//	p -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps)
func (o AdamW) Step(p, g, m, v []float32, lr float32, t int) {
	s := o.scalars(lr, t)
	g, m, v = g[:len(p)], m[:len(p)], v[:len(p)]
	n := stepVector(&s, p, g, m, v)
	s.step(p[n:], g[n:], m[n:], v[n:])
}

// step is the loop in Go: all of it where there is no assembly, and what the assembly is tested against.
func (s *scalars) step(p, g, m, v []float32) {
	for i, x := range p {
		gi := g[i]
		mi := m[i] + float32(s.oneMinusBeta1*(gi-m[i]))
		vi := float32(s.beta2*v[i]) + float32(float32(s.oneMinusBeta2*gi)*gi)
		m[i], v[i] = mi, vi
		denom := sqrt(vi)/s.sqrtCorrection2 + s.eps
		p[i] = float32(x*s.keep) - float32(s.stepSize*mi)/denom
	}
}

// scalars are what a step needs besides the vectors, worked out in float64 and rounded once, as torch does.
type scalars struct {
	keep, stepSize, sqrtCorrection2     float32
	oneMinusBeta1, beta2, oneMinusBeta2 float32
	eps                                 float32
}

func (o AdamW) scalars(lr float32, t int) scalars {
	b1, b2, rate := decimal(o.Beta1), decimal(o.Beta2), float64(lr)
	correction1 := 1 - power(b1, t)
	correction2 := 1 - power(b2, t)
	return scalars{
		keep:            float32(1 - float64(rate*decimal(o.WeightDecay))),
		stepSize:        float32(rate / correction1),
		sqrtCorrection2: float32(math.Sqrt(correction2)),
		oneMinusBeta1:   float32(1 - b1),
		beta2:           float32(b2),
		oneMinusBeta2:   float32(1 - b2),
		eps:             o.Eps,
	}
}

// decimal is the float64 nearest to the decimal that x was written as. torch keeps 0.999 as a float64; 1-b2 taken
// from the float32 would be off by 1e-5 of its value.
func decimal(x float32) float64 {
	d, err := strconv.ParseFloat(strconv.FormatFloat(float64(x), 'g', -1, 32), 64)
	if err != nil { // NaN and infinities parse; nothing else can be formatted
		return float64(x)
	}
	return d
}

// power is x^n for n >= 0 by squaring: multiplications only, so the same bits everywhere.
func power(x float64, n int) float64 {
	r := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			r = float64(r * x)
		}
		x = float64(x * x)
	}
	return r
}

// sqrt is correctly rounded: Go compiles this form to the machine's float32 square root, and where there is none,
// rounding the float64 root gives the same result.
func sqrt(x float32) float32 { return float32(math.Sqrt(float64(x))) }
