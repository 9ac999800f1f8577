package peft

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dlclark/regexp2"
)

// AllLinear is the target_modules word for every linear layer but the output head.
const AllLinear = "all-linear"

// matchTimeout bounds one regular expression match: target_modules is user input and the engine backtracks.
const matchTimeout = time.Second

// Values of LoraConfig.Bias. "all" of PEFT is not among them.
const (
	BiasNone     = "none"      // no bias is trained; also ""
	BiasLoraOnly = "lora_only" // the biases of the adapted layers are trained
)

// LoraConfig is the part of PEFT's LoraConfig that lorad trains with. What it leaves out is refused by name when a file asks for it.
type LoraConfig struct {
	R              int
	Alpha          float64
	Dropout        float64  // probability that an input of lora_A is dropped, in [0, 1)
	TargetModules  []string // module names or dotted suffixes, or the single word "all-linear"
	TargetRegex    string   // instead of TargetModules: a regular expression that must match the whole module path
	ExcludeModules []string // names or dotted suffixes of modules that get no adapter
	ExcludeRegex   string   // instead of ExcludeModules
	RankPattern    map[string]int
	AlphaPattern   map[string]float64
	UseRSLoRA      bool     // scale by alpha/sqrt(r) in place of alpha/r
	UseDoRA        bool     // learn the length of each row of the weight apart from its direction
	Bias           string   // BiasNone or BiasLoraOnly
	ModulesToSave  []string // endings of names of modules that are trained whole
	Init           string   // init_lora_weights: "" (true), gaussian, pissa or pissa_niter_K
	BaseModel      string   // base_model_name_or_path; "" is written as null
}

// Scale is the factor of B(A(x)) where no pattern applies: alpha/r, or alpha/sqrt(r) with rank-stabilised LoRA.
func (c *LoraConfig) Scale() float64 { return c.scale(c.R, c.Alpha) }

func (c *LoraConfig) scale(r int, alpha float64) float64 {
	if c.UseRSLoRA {
		return alpha / math.Sqrt(float64(r))
	}
	return alpha / float64(r)
}

// Of is the rank and the scale of one module. Keys of the patterns are regular expressions for the whole path or its dotted end. Where
// several match, the first in alphabetical order counts, as it does once PEFT has saved the configuration and read it again.
func (c *LoraConfig) Of(module string) (r int, scale float64) {
	r, alpha := c.R, c.Alpha
	if key, ok := patternKey(c.RankPattern, module); ok {
		r = c.RankPattern[key]
	}
	if key, ok := patternKey(c.AlphaPattern, module); ok {
		alpha = c.AlphaPattern[key]
	}
	return r, c.scale(r, alpha)
}

// MaxRank is the largest rank that any module can have.
func (c *LoraConfig) MaxRank() int {
	r := c.R
	for _, p := range c.RankPattern {
		r = max(r, p)
	}
	return r
}

func patternKey[V any](patterns map[string]V, module string) (string, bool) {
	for _, key := range slices.Sorted(maps.Keys(patterns)) {
		if ok, err := fullMatch(`(?:.*\.)?(?:`+key+`)`, module); err == nil && ok {
			return key, true
		}
	}
	return "", false
}

// Saved reports whether the module at a path is trained whole. As in PEFT it is enough that its name ends so, dot or no dot.
func (c *LoraConfig) Saved(module string) bool {
	for _, m := range c.ModulesToSave {
		if strings.HasSuffix(module, m) {
			return true
		}
	}
	return false
}

// Match reports whether the linear layer at a module path (model.layers.0.self_attn.q_proj, lm_head) gets an adapter.
// The rules are PEFT's: a regular expression matches the whole path; a name matches the path or its dotted end;
// "all-linear", in any case, matches everything but the output head.
// Excluded modules, and those that are trained whole or lie in one that is, get none.
func (c *LoraConfig) Match(module string) bool {
	switch {
	case c.Saved(module) || named(c.ExcludeModules, c.ExcludeRegex, module):
		return false
	case c.allLinear():
		return module != "lm_head" && !strings.HasSuffix(module, ".lm_head")
	default:
		return named(c.TargetModules, c.TargetRegex, module)
	}
}

// named is PEFT's rule for lists and regular expressions of modules.
func named(names []string, regex, module string) bool {
	if regex != "" {
		ok, err := fullMatch(regex, module)
		return err == nil && ok
	}
	for _, t := range names {
		if module == t || strings.HasSuffix(module, "."+t) {
			return true
		}
	}
	return false
}

func (c *LoraConfig) allLinear() bool {
	return len(c.TargetModules) == 1 && strings.EqualFold(c.TargetModules[0], AllLinear)
}

// maxRank bounds ranks, before anything is allocated for them.
const maxRank = 1 << 16

// Validate refuses values that cannot be trained with, before anything is allocated for them.
func (c *LoraConfig) Validate() error {
	switch {
	case c.R < 1 || c.R > maxRank:
		return fmt.Errorf("lora config: r: %d is not a rank; give 1 to %d, usually 8 to 64", c.R, maxRank)
	case math.IsNaN(c.Alpha) || math.IsInf(c.Alpha, 0):
		return fmt.Errorf("lora config: lora_alpha: %v is not a number", c.Alpha)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("lora config: lora_dropout: %v is not a probability in [0, 1)", c.Dropout)
	case c.TargetRegex != "" && len(c.TargetModules) > 0:
		return fmt.Errorf("lora config: target_modules: give a list of names or one regular expression, not both")
	case c.TargetRegex == "" && len(c.TargetModules) == 0:
		return fmt.Errorf("lora config: target_modules: empty; name the layers, e.g. [q_proj, v_proj], or all-linear")
	case c.ExcludeRegex != "" && len(c.ExcludeModules) > 0:
		return fmt.Errorf("lora config: exclude_modules: give a list of names or one regular expression, not both")
	case c.Bias != "" && c.Bias != BiasNone && c.Bias != BiasLoraOnly:
		return fmt.Errorf("lora config: bias: %q is not supported; give none or lora_only", c.Bias)
	case slices.Contains(c.ModulesToSave, ""):
		return fmt.Errorf("lora config: modules_to_save: an empty name would mean every module")
	}
	return errors.Join(c.validateInit(), c.validatePatterns())
}

// Values of LoraConfig.Init. InitPiSSANiter is followed by a number of rounds.
const (
	InitGaussian   = "gaussian"
	InitPiSSA      = "pissa"
	InitPiSSANiter = "pissa_niter_"
)

// maxNiter bounds the rounds of pissa_niter_K.
const maxNiter = 1000

// PiSSA says whether adapters start from the principal components of their weights, and after how many rounds of the fast way to find
// them; 0 means exactly.
func (c *LoraConfig) PiSSA() (rounds int, ok bool) {
	if c.Init == InitPiSSA {
		return 0, true
	}
	digits, ok := strings.CutPrefix(c.Init, InitPiSSANiter)
	rounds, err := strconv.Atoi(digits)
	return rounds, ok && err == nil && rounds > 0 && rounds <= maxNiter
}

func (c *LoraConfig) validateInit() error {
	_, pissa := c.PiSSA()
	switch {
	case c.Init == "" || c.Init == InitGaussian:
		return nil
	case !pissa:
		return fmt.Errorf("lora config: init_lora_weights: %q is not supported; give true, gaussian, pissa or pissa_niter_4 (1 to %d rounds)", c.Init, maxNiter)
	case c.UseDoRA:
		return fmt.Errorf("lora config: init_lora_weights: %s is not supported together with use_dora; leave one of them out", c.Init)
	case c.Alpha <= 0:
		return fmt.Errorf("lora config: lora_alpha: %v: %s needs a scale above 0", c.Alpha, c.Init)
	}
	return nil
}

func (c *LoraConfig) validatePatterns() error {
	ranks, alphas := slices.Sorted(maps.Keys(c.RankPattern)), slices.Sorted(maps.Keys(c.AlphaPattern))
	for _, key := range ranks {
		if r := c.RankPattern[key]; r < 1 || r > maxRank {
			return fmt.Errorf("lora config: rank_pattern: %s: %d is not a rank", key, r)
		}
	}
	for _, key := range alphas {
		if alpha := c.AlphaPattern[key]; math.IsNaN(alpha) || math.IsInf(alpha, 0) {
			return fmt.Errorf("lora config: alpha_pattern: %s: %v is not a number", key, alpha)
		}
	}
	for _, of := range []struct {
		key      string
		patterns []string
	}{{"target_modules", []string{c.TargetRegex}}, {"exclude_modules", []string{c.ExcludeRegex}}, {"rank_pattern", ranks}, {"alpha_pattern", alphas}} {
		for _, p := range of.patterns {
			if _, err := fullMatch(p, ""); err != nil {
				return fmt.Errorf("lora config: %s: %w", of.key, err)
			}
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
