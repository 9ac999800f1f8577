package model

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

type jsonRope struct {
	Type                string   `json:"type"`
	RopeType            string   `json:"rope_type"`
	Theta               *float64 `json:"rope_theta"`
	Factor              float64  `json:"factor"`
	LowFreqFactor       float64  `json:"low_freq_factor"`
	HighFreqFactor      float64  `json:"high_freq_factor"`
	OriginalMaxPosition int      `json:"original_max_position_embeddings"`
	PartialRotaryFactor *float64 `json:"partial_rotary_factor"`

	// longrope
	ShortFactor     []float64 `json:"short_factor"`
	LongFactor      []float64 `json:"long_factor"`
	AttentionFactor *float64  `json:"attention_factor"`
}

// rope reads v4's rope_theta and rope_scaling, or v5's rope_parameters, which holds both, and for Gemma 3 one of them per kind of layer.
func (j *jsonConfig) rope(c *Config, f family) error {
	key, raw := "rope_scaling", j.RopeScaling
	if !isNull(j.RopeParameters) {
		key, raw = "rope_parameters", j.RopeParameters
	}
	c.RopeTheta = or(j.RopeTheta, f.theta)
	if f.localTheta > 0 {
		c.SlidingRopeTheta = or(j.RopeLocalBaseFreq, f.localTheta)
		var kinds struct{ Full, Sliding json.RawMessage }
		if err := unmarshalKinds(raw, &kinds.Full, &kinds.Sliding); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if kinds.Full != nil {
			local, err := readRope(kinds.Sliding, c.SlidingRopeTheta)
			if s, e := local.scaling(); err != nil || e != nil || s.Type != "" || or(local.PartialRotaryFactor, 1) != 1 {
				return fmt.Errorf("%s: sliding_attention %s is not supported; supported: the type default", key, kinds.Sliding)
			}
			raw, c.SlidingRopeTheta = kinds.Full, *local.Theta
		}
	}
	r, err := readRope(raw, c.RopeTheta)
	if err == nil {
		c.RopeTheta = *r.Theta
		err = j.turns(c, f, r)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// turns says how much of a head is turned, and by which frequencies.
func (j *jsonConfig) turns(c *Config, f family, r jsonRope) (err error) {
	if part := or(r.PartialRotaryFactor, or(j.PartialRotaryFactor, 1)); part != 1 {
		if !f.fused || !(part > 0 && part < 1) {
			return fmt.Errorf("partial_rotary_factor %v is not supported for model_type %s; supported: 1, for phi3 also less", part, f.name)
		}
		if c.RotaryDim = int(float64(c.HeadDim) * part); c.RotaryDim < 2 {
			return fmt.Errorf("partial_rotary_factor %v leaves nothing of head_dim %d to turn", part, c.HeadDim)
		}
	}
	if c.RopeScaling, err = r.scaling(); err != nil || c.RopeScaling.Type != longRope {
		return err
	}
	if !f.fused {
		return fmt.Errorf("rope type %q is not supported for model_type %s; supported: default, linear, llama3", longRope, f.name)
	}
	c.RopeScaling.fillLongRope(r, or(j.OriginalMaxPosition, 4096), c.MaxPosition)
	return nil
}

func unmarshalKinds(raw json.RawMessage, full, sliding *json.RawMessage) error {
	if isNull(raw) {
		return nil
	}
	var kinds map[string]json.RawMessage
	err := json.Unmarshal(raw, &kinds)
	*full, *sliding = kinds["full_attention"], kinds["sliding_attention"]
	return err
}

// readRope reads one description of rope, with theta where it has none.
func readRope(raw json.RawMessage, theta float64) (jsonRope, error) {
	var r jsonRope
	var err error
	if !isNull(raw) {
		err = json.Unmarshal(raw, &r)
	}
	theta = or(r.Theta, theta)
	r.Theta = &theta
	return r, err
}

// longRope is Phi-3's; older files call it su.
const longRope = "longrope"

// scaling is what a description says of the frequencies; its type is "" if they are as they are.
func (r jsonRope) scaling() (RopeScaling, error) {
	kind := cmp.Or(r.RopeType, r.Type)
	if kind == "" && r.Factor == 0 {
		kind = "default"
	}
	switch kind {
	case "default":
		return RopeScaling{}, nil
	case "linear":
		return RopeScaling{Type: kind, Factor: r.Factor}, nil
	case "llama3":
		return RopeScaling{Type: kind, Factor: r.Factor, LowFreqFactor: r.LowFreqFactor, HighFreqFactor: r.HighFreqFactor, OriginalMaxPosition: r.OriginalMaxPosition}, nil
	case longRope, "su":
		return RopeScaling{Type: longRope, Factor: r.Factor, OriginalMaxPosition: r.OriginalMaxPosition, Short: r.ShortFactor, Long: r.LongFactor}, nil
	}
	return RopeScaling{}, fmt.Errorf("rope type %q is not supported; supported: default, linear, llama3, for phi3 longrope", kind)
}

// fillLongRope adds what may be left out (transformers' modeling_rope_utils.py).
func (s *RopeScaling) fillLongRope(r jsonRope, original, maxPosition int) {
	s.OriginalMaxPosition = cmp.Or(s.OriginalMaxPosition, original)
	s.Factor = cmp.Or(s.Factor, float64(maxPosition)/float64(s.OriginalMaxPosition))
	s.Attention = 1
	if s.Factor > 1 {
		s.Attention = math.Sqrt(1 + math.Log(s.Factor)/math.Log(float64(s.OriginalMaxPosition)))
	}
	s.Attention = or(r.AttentionFactor, s.Attention)
}

// validate checks the scaling of a head of which so many dimensions turn.
func (r RopeScaling) validate(turned int) error {
	switch {
	case r.Type == "" || r.Type == "default":
		return nil
	case !(r.Factor > 0) || math.IsInf(r.Factor, 0):
		return fmt.Errorf("rope scaling %q: factor %v is not positive", r.Type, r.Factor)
	case r.Type == "llama3" && !(r.LowFreqFactor > 0 && r.HighFreqFactor > r.LowFreqFactor):
		return fmt.Errorf("rope scaling llama3: want 0 < low_freq_factor %v < high_freq_factor %v", r.LowFreqFactor, r.HighFreqFactor)
	case r.Type == "llama3" && r.OriginalMaxPosition < 1:
		return errors.New("rope scaling llama3: original_max_position_embeddings is missing")
	case r.Type != longRope:
		return nil
	case r.OriginalMaxPosition < 2 || !(r.Attention > 0) || math.IsInf(r.Attention, 0):
		return fmt.Errorf("rope scaling longrope: original_max_position_embeddings %d, attention_factor %v", r.OriginalMaxPosition, r.Attention)
	case len(r.Short) != turned/2 || len(r.Long) != turned/2:
		return fmt.Errorf("rope scaling longrope: short_factor has %d numbers and long_factor %d, want %d", len(r.Short), len(r.Long), turned/2)
	}
	for _, f := range append(slices.Clone(r.Short), r.Long...) {
		if !(f > 0) || math.IsInf(f, 0) {
			return fmt.Errorf("rope scaling longrope: a factor is %v, not positive", f)
		}
	}
	return nil
}
