package export

import (
	"fmt"
	"math"
	"path"
	"strings"
)

// Check is what Verify found of an adapter.
type Check struct {
	Base     string   `json:"base"`     // "same", "another" or "unknown": do the weights have the recorded fingerprint
	Modules  int      `json:"modules"`  // layers that it changes
	Targets  int      `json:"targets"`  // layers that its configuration names
	Missing  []string `json:"missing"`  // named and not changed
	Effect   Effect   `json:"effect"`   // ||scale*B*A|| / ||W||, over the layers
	Inert    []string `json:"inert"`    // layers that it does not change at all: B is zero
	Broken   []string `json:"broken"`   // with a NaN or an infinity
	Problems []string `json:"problems"` // in words; none = good
}

// Effect is the size of the change, relative to the weights.
type Effect struct {
	Least   float64 `json:"least"`
	Mean    float64 `json:"mean"`
	Largest float64 `json:"largest"`
}

// BaseIs says whether the base has the weights that the adapter was trained on: same, another or unknown. It reads all of them.
func (a *Adapter) BaseIs(p Provenance) (string, error) {
	if p.Base == "" {
		return "unknown", nil
	}
	got, err := a.base.Fingerprint()
	if err != nil {
		return "unknown", err
	}
	if fmt.Sprintf("%x", got) != p.Base {
		return "another", nil
	}
	return "same", nil
}

// Verify holds an adapter against its base.
func (a *Adapter) Verify(p Provenance) (Check, error) {
	base, err := a.BaseIs(p)
	c := Check{Base: base, Modules: len(a.changes)}
	if err != nil {
		return c, err
	}
	a.coverage(&c)
	if err := a.effects(&c); err != nil {
		return c, err
	}
	c.judge()
	return c, nil
}

// coverage compares the layers that the configuration names with those that have an adapter.
func (a *Adapter) coverage(c *Check) {
	cfg := a.base.Config()
	names := []string{}
	for _, s := range cfg.Tensors() {
		if len(s.Shape) == 2 && s.Name != "model.embed_tokens.weight" {
			names = append(names, strings.TrimSuffix(s.Name, ".weight"))
		}
	}
	if cfg.TieEmbeddings {
		names = append(names, "lm_head")
	}
	for _, module := range names {
		if !a.Config.Match(module) {
			continue
		}
		c.Targets++
		if _, ok := a.changes[module]; !ok {
			c.Missing = append(c.Missing, module)
		}
	}
}

func (a *Adapter) effects(c *Check) error {
	c.Effect.Least = math.Inf(1)
	for _, module := range a.modules() {
		ch := a.changes[module]
		w, _, err := a.base.Tensor(module + ".weight")
		if err != nil {
			return err
		}
		d := a.delta(ch, w)
		e := math.Sqrt(squares(d) / max(squares(w), math.SmallestNonzeroFloat64))
		switch {
		case !finite(d):
			c.Broken = append(c.Broken, module)
			continue
		case e == 0:
			c.Inert = append(c.Inert, module)
		}
		c.Effect.Least, c.Effect.Largest = min(c.Effect.Least, e), max(c.Effect.Largest, e)
		c.Effect.Mean += e / float64(len(a.changes))
	}
	if math.IsInf(c.Effect.Least, 1) {
		c.Effect.Least = 0
	}
	return nil
}

// judge puts into words what is wrong.
func (c *Check) judge() {
	c.Missing, c.Inert, c.Broken, c.Problems = list(c.Missing), list(c.Inert), list(c.Broken), list(c.Problems)
	say := func(bad bool, format string, args ...any) {
		if bad {
			c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
		}
	}
	say(c.Base == "another", "the base model has other weights than the adapter was trained on: answers will be worse; give the right one with --base-model")
	say(len(c.Missing) > 0, "%d of %d target layers have no adapter: %s", len(c.Missing), c.Targets, some(c.Missing))
	say(len(c.Broken) > 0, "%d layers have a NaN or an infinity: %s; go back to an earlier checkpoint", len(c.Broken), some(c.Broken))
	say(len(c.Inert) == c.Modules, "it changes nothing: every lora_B is zero; was it saved before training?")
	say(len(c.Inert) > 0 && len(c.Inert) < c.Modules, "%d layers are not changed: %s", len(c.Inert), some(c.Inert))
}

// list is never null in JSON.
func list(words []string) []string { return append([]string{}, words...) }

func some(modules []string) string {
	shown := modules[:min(3, len(modules))]
	short := make([]string, len(shown))
	for i, m := range shown {
		short[i] = strings.TrimPrefix(path.Clean(m), "model.")
	}
	text := strings.Join(short, ", ")
	if len(modules) > len(shown) {
		text += ", ..."
	}
	return text
}
