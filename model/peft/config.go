package peft

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/dlclark/regexp2"
)

// AllLinear is the target_modules word for every linear layer but the output head.
const AllLinear = "all-linear"

// matchTimeout bounds one regular expression match: target_modules is user input and the engine backtracks.
const matchTimeout = time.Second

// LoraConfig is the part of PEFT's LoraConfig that lorad trains with. What it leaves out is refused by name when a file asks for it.
type LoraConfig struct {
	R             int
	Alpha         float64
	Dropout       float64  // probability that an input of lora_A is dropped, in [0, 1)
	TargetModules []string // module names or dotted suffixes, or the single word "all-linear"
	TargetRegex   string   // instead of TargetModules: a regular expression that must match the whole module path
	UseRSLoRA     bool     // scale by alpha/sqrt(r) in place of alpha/r
	BaseModel     string   // base_model_name_or_path; "" is written as null
}

// Scale is the factor of B(A(x)): alpha/r, or alpha/sqrt(r) with rank-stabilised LoRA.
func (c *LoraConfig) Scale() float64 {
	if c.UseRSLoRA {
		return c.Alpha / math.Sqrt(float64(c.R))
	}
	return c.Alpha / float64(c.R)
}

// Match reports whether the linear layer at a module path (model.layers.0.self_attn.q_proj, lm_head) gets an adapter.
// The rules are PEFT's: a regular expression matches the whole path; a name matches the path or its dotted end;
// "all-linear", in any case, matches everything but the output head.
func (c *LoraConfig) Match(module string) bool {
	if c.TargetRegex != "" {
		ok, err := fullMatch(c.TargetRegex, module)
		return err == nil && ok
	}
	if c.allLinear() {
		return module != "lm_head" && !strings.HasSuffix(module, ".lm_head")
	}
	for _, t := range c.TargetModules {
		if module == t || strings.HasSuffix(module, "."+t) {
			return true
		}
	}
	return false
}

func (c *LoraConfig) allLinear() bool {
	return len(c.TargetModules) == 1 && strings.EqualFold(c.TargetModules[0], AllLinear)
}

// Validate refuses values that cannot be trained with, before anything is allocated for them.
func (c *LoraConfig) Validate() error {
	switch {
	case c.R < 1 || c.R > 1<<16:
		return fmt.Errorf("lora config: r: %d is not a rank; give 1 to 65536, usually 8 to 64", c.R)
	case math.IsNaN(c.Alpha) || math.IsInf(c.Alpha, 0):
		return fmt.Errorf("lora config: lora_alpha: %v is not a number", c.Alpha)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("lora config: lora_dropout: %v is not a probability in [0, 1)", c.Dropout)
	case c.TargetRegex != "" && len(c.TargetModules) > 0:
		return fmt.Errorf("lora config: target_modules: give a list of names or one regular expression, not both")
	case c.TargetRegex == "" && len(c.TargetModules) == 0:
		return fmt.Errorf("lora config: target_modules: empty; name the layers, e.g. [q_proj, v_proj], or all-linear")
	}
	if c.TargetRegex != "" {
		if _, err := fullMatch(c.TargetRegex, ""); err != nil {
			return fmt.Errorf("lora config: target_modules: %w", err)
		}
	}
	return nil
}

// fullMatch is Python's re.fullmatch. regexp2 knows look-around as Python does; Go's regexp does not.
func fullMatch(pattern, s string) (bool, error) {
	re, err := regexp2.Compile(`\A(?:`+pattern+`)\z`, regexp2.None)
	if err != nil {
		return false, fmt.Errorf("regular expression %q: %w", pattern, err)
	}
	re.MatchTimeout = matchTimeout
	return re.MatchString(s)
}
