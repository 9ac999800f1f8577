package llama

import (
	"cmp"
	"fmt"
	"math"

	"lorad/engine/kernel"
	"lorad/model"
)

// rope holds the rotations of positions 0..rows-1: cos and sin are [rows, turned/2].
type rope[T kernel.Float] struct {
	inv      []float32
	turned   int // dimensions of a head that turn: the first ones
	rows     int
	factor   float64 // of cos and sin; 0: none
	scale    T       // of the scores
	cos, sin []T

	upTo int      // longrope: sequences of more positions
	long *rope[T] // turn as this says
}

// of is the rotation of a sequence of so many positions.
func (r *rope[T]) of(positions int) *rope[T] {
	if r.long != nil && positions > r.upTo {
		return r.long
	}
	return r
}

// from is the rotations from a position on.
func (r *rope[T]) from(position int) (cos, sin []T) {
	return r.cos[position*r.turned/2:], r.sin[position*r.turned/2:]
}

// positions makes the rotations, and says which layers use which.
func (m *Model[T]) positions() (err error) {
	c := m.cfg
	if m.rope, err = newRope[T](c, c.RopeTheta, c.RopeScaling); err != nil {
		return err
	}
	if c.SlidingRopeTheta > 0 {
		m.slide, err = newRope[T](c, c.SlidingRopeTheta, model.RopeScaling{})
	}
	for i := range m.layers {
		l := &m.layers[i]
		if l.rope = &m.rope; i < len(c.Sliding) && c.Sliding[i] {
			if l.window = c.Window; c.SlidingRopeTheta > 0 {
				l.rope = &m.slide
			}
		}
	}
	return err
}

// reservePositions extends the tables.
func (m *Model[T]) reservePositions(rows int) {
	m.rope.reserve(rows)
	m.slide.reserve(rows)
}

func newRope[T kernel.Float](cfg model.Config, theta float64, s model.RopeScaling) (rope[T], error) {
	turned := cmp.Or(cfg.RotaryDim, cfg.HeadDim)
	inv := make([]float32, turned/2)
	for i := range inv {
		inv[i] = float32(1 / math.Pow(theta, float64(2*i)/float64(turned)))
	}
	r := rope[T]{inv: inv, turned: turned, scale: T(cmp.Or(cfg.ScoreScale, 1/math.Sqrt(float64(cfg.HeadDim))))}
	switch s.Type {
	case "", "default":
	case "linear":
		for i := range inv {
			inv[i] /= float32(s.Factor)
		}
	case "llama3":
		for i := range inv {
			inv[i] = float32(llama3(float64(inv[i]), s))
		}
	case "longrope":
		r.split(theta, s)
	default:
		return rope[T]{}, fmt.Errorf("llama: config: rope type %q: not supported; lorad knows default, linear, llama3 and longrope", s.Type)
	}
	return r, nil
}

// split makes rotations for short sequences and others for long ones, as transformers does for one sequence at a time. A sequence that grows
// beyond the limit while it is continued keeps the keys that were turned before, as there.
func (r *rope[T]) split(theta float64, s model.RopeScaling) {
	long := *r
	r.factor, long.factor = s.Attention, s.Attention
	r.inv, long.inv = make([]float32, len(r.inv)), make([]float32, len(r.inv))
	for i := range r.inv {
		power := float32(math.Pow(theta, float64(2*i)/float64(r.turned)))
		r.inv[i], long.inv[i] = 1/(float32(s.Short[i])*power), 1/(float32(s.Long[i])*power)
	}
	r.upTo, r.long = s.OriginalMaxPosition, &long
}

// llama3 slows down long wavelengths by Factor, keeps short ones, and blends between (transformers' modeling_rope_utils.py).
func llama3(inv float64, s model.RopeScaling) float64 {
	wavelen, old := 2*math.Pi/inv, float64(s.OriginalMaxPosition)
	switch {
	case wavelen > old/s.LowFreqFactor:
		return inv / s.Factor
	case wavelen < old/s.HighFreqFactor:
		return inv
	}
	smooth := (old/wavelen - s.LowFreqFactor) / (s.HighFreqFactor - s.LowFreqFactor)
	return (1-smooth)*inv/s.Factor + smooth*inv
}

// reserve extends the tables to a number of positions. Angles are products in float32, as in Hugging Face.
func (r *rope[T]) reserve(rows int) {
	if r.long != nil {
		r.long.reserve(rows)
	}
	if rows <= r.rows {
		return
	}
	rows = (rows + 255) &^ 255
	for p := r.rows; p < rows; p++ {
		for _, f := range r.inv {
			sin, cos := math.Sincos(float64(float32(p) * f))
			if r.factor != 0 {
				sin, cos = r.factor*sin, r.factor*cos
			}
			r.cos, r.sin = append(r.cos, T(cos)), append(r.sin, T(sin))
		}
	}
	r.rows = rows
}

// Rotations is the table of a model's rotary embedding for positions 0..n-1 of a sequence of so many: cos and sin of [n, d/2] angles, where d
// dimensions of a head turn.
func Rotations(cfg model.Config, n, sequence int) (cos, sin []float32, err error) {
	all, err := newRope[float32](cfg, cfg.RopeTheta, cfg.RopeScaling)
	if err != nil {
		return nil, nil, err
	}
	r := all.of(sequence)
	r.reserve(n)
	return r.cos[:n*len(r.inv)], r.sin[:n*len(r.inv)], nil
}
