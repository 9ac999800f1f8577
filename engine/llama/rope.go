package llama

import (
	"cmp"
	"fmt"
	"math"

	"lorad/engine/kernel"
	"lorad/model"
)

// rope holds the rotations of positions 0..rows-1: cos and sin are [rows, headDim/2].
type rope[T kernel.Float] struct {
	inv      []float32
	rows     int
	scale    T // of the scores
	cos, sin []T
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
	inv := make([]float32, cfg.HeadDim/2)
	for i := range inv {
		inv[i] = float32(1 / math.Pow(theta, float64(2*i)/float64(cfg.HeadDim)))
	}
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
	default:
		return rope[T]{}, fmt.Errorf("llama: config: rope type %q: not supported; lorad knows default, linear and llama3", s.Type)
	}
	scale := cmp.Or(cfg.ScoreScale, 1/math.Sqrt(float64(cfg.HeadDim)))
	return rope[T]{inv: inv, scale: T(scale)}, nil
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
	if rows <= r.rows {
		return
	}
	rows = (rows + 255) &^ 255
	for p := r.rows; p < rows; p++ {
		for _, f := range r.inv {
			sin, cos := math.Sincos(float64(float32(p) * f))
			r.cos, r.sin = append(r.cos, T(cos)), append(r.sin, T(sin))
		}
	}
	r.rows = rows
}

// Rotations is the table of a model's rotary embedding for positions 0..n-1: cos and sin of [n, headDim/2] angles.
func Rotations(cfg model.Config, n int) (cos, sin []float32, err error) {
	r, err := newRope[float32](cfg, cfg.RopeTheta, cfg.RopeScaling)
	if err != nil {
		return nil, nil, err
	}
	r.reserve(n)
	return r.cos[:n*len(r.inv)], r.sin[:n*len(r.inv)], nil
}
