package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"lorad/internal/chaos"
)

// faultView is one fault as -o json shows it.
type faultView struct {
	Kind        chaos.Kind `json:"kind"`
	Node        string     `json:"node"`
	AtStep      uint64     `json:"at_step"`
	RecoveredMS int64      `json:"recovered_ms"` // until the next step was committed; -1: none was
}

// chaosResult is what lorad chaos -o json prints.
type chaosResult struct {
	Seed          uint64      `json:"seed"`
	Series        string      `json:"series,omitempty"`
	Nodes         int         `json:"nodes"`
	Steps         uint64      `json:"steps"`
	Faults        []faultView `json:"faults"`
	RecoveredP50  int64       `json:"recovered_ms_p50"`
	RecoveredP99  int64       `json:"recovered_ms_p99"`
	RecoveredMax  int64       `json:"recovered_ms_max"`
	LimitMS       int64       `json:"limit_ms,omitempty"` // of a series: for the 99th percentile
	WithinLimit   *bool       `json:"within_limit,omitempty"`
	StepMS        int64       `json:"step_ms_p50"`
	Goodput       float64     `json:"goodput,omitempty"` // tokens committed, as a share of what the undisturbed stretches would have made
	Generations   uint64      `json:"generations"`
	LostSteps     int         `json:"lost_steps"`
	LostSaved     int         `json:"lost_checkpoints"`
	Exits         int         `json:"unexpected_exits"` // of nodes that nobody had killed
	Minority      int         `json:"minority_commits"`
	DivergedSteps int         `json:"diverged_steps"`
	Missing       uint64      `json:"missing"`
	Duplicated    uint64      `json:"duplicated"`
	SHA256        string      `json:"sha256"`
	CleanSHA256   string      `json:"clean_sha256"`
	StateSHA256   string      `json:"state_sha256"` // of weights and optimiser after the last step
	CleanState    string      `json:"clean_state_sha256"`
	CleanSeconds  float64     `json:"clean_seconds"`
	WallSeconds   float64     `json:"wall_seconds"`
	Findings      []string    `json:"findings"`
	Verdict       string      `json:"verdict"`
}

// conclude judges and prints.
func (c chaosCmd) conclude(a *app, seen chaos.Seen, res chaosResult) error {
	res.LostSteps, res.DivergedSteps, res.Missing, res.Duplicated = seen.LostSteps, seen.DivergedSteps, seen.Missing, seen.Doubled
	res.SHA256, res.CleanSHA256, res.StateSHA256, res.CleanState = seen.SHA256, seen.Clean, seen.State, seen.CleanState
	res.Minority = seen.MinorityCommits
	res.Findings, res.Verdict = append([]string{}, chaos.Judge(seen)...), verdictGood
	if len(res.Findings) > 0 {
		res.Verdict = verdictBad
	}
	res.LostSaved, res.Exits = seen.LostSaved, len(seen.Deaths)
	c.measure(&res)
	if err := a.print(res, func(w io.Writer) { c.table(w, res) }); err != nil {
		return err
	}
	if res.Verdict != verdictGood {
		return &exitError{exitFailed, fmt.Errorf("chaos with seed %d: %s; the nodes' logs are in %s", c.Seed, strings.Join(res.Findings, "; "), c.Out)}
	}
	return nil
}

// measure sums up how long the faults kept the run, and holds it against the limit of the series. Speed is no part of the
// verdict: it is the machine's.
func (c chaosCmd) measure(res *chaosResult) {
	var times []time.Duration
	for _, f := range res.Faults {
		if f.RecoveredMS >= 0 {
			times = append(times, time.Duration(f.RecoveredMS)*time.Millisecond)
		}
	}
	res.RecoveredP50, res.RecoveredP99 = chaos.Quantile(times, 0.5).Milliseconds(), chaos.Quantile(times, 0.99).Milliseconds()
	res.RecoveredMax = chaos.Quantile(times, 1).Milliseconds()
	var within bool
	switch s := c.series; {
	case s.Goodput > 0:
		within = res.Goodput >= s.Goodput
	case s.Limit > 0:
		res.LimitMS = s.Limit.Milliseconds() + res.StepMS
		within = res.RecoveredP99 <= res.LimitMS
	default:
		return
	}
	res.WithinLimit = &within
}

func (c chaosCmd) table(w io.Writer, r chaosResult) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "faults\t%d (seed %d), on %d nodes over %d steps in %d generations\n", len(r.Faults), r.Seed, r.Nodes, r.Steps, r.Generations)
	fmt.Fprintf(t, "next step\tafter %d ms in the middle, %d ms at most\n", r.RecoveredP50, r.RecoveredMax)
	if r.LimitMS > 0 {
		fmt.Fprintf(t, "99th percentile\t%d ms; the limit is %d ms (a step takes %d ms)\n", r.RecoveredP99, r.LimitMS, r.StepMS)
	}
	if r.Goodput > 0 {
		fmt.Fprintf(t, "goodput\t%.1f %% of the undisturbed rate\n", 100*r.Goodput)
	}
	fmt.Fprintf(t, "lost steps\t%d\n", r.LostSteps)
	fmt.Fprintf(t, "missing\t%d examples\n", r.Missing)
	fmt.Fprintf(t, "duplicated\t%d examples\n", r.Duplicated)
	fmt.Fprintf(t, "undisturbed\tsha256 %s\n", r.CleanSHA256)
	fmt.Fprintf(t, "disturbed\tsha256 %s\n", r.SHA256)
	for _, f := range r.Findings {
		fmt.Fprintf(t, "found\t%s\n", f)
	}
	fmt.Fprintf(t, "verdict\t%s, in %.0f s\n", r.Verdict, r.WallSeconds)
	t.Flush()
}
