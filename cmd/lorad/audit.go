package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"lorad/proto"
)

type auditCmd struct {
	ID string `arg:"" name:"run" help:"Run id, a unique beginning of it, or its name."`
}

// auditView is what lorad audit -o json prints.
type auditView struct {
	Run         string   `json:"run"`
	Steps       uint64   `json:"steps"`
	Planned     uint64   `json:"planned"`
	Epochs      uint64   `json:"epochs"`
	Examples    uint64   `json:"examples"`
	Trained     uint64   `json:"trained"`
	Missing     uint64   `json:"missing"`
	Duplicated  uint64   `json:"duplicated"`
	Mismatched  uint64   `json:"mismatched"`
	Skipped     uint64   `json:"skipped,omitempty"` // steps that changed nothing
	Ended       uint64   `json:"ended,omitempty"`   // the step that ended the run before its time
	Generations uint64   `json:"generations"`
	Findings    []string `json:"findings"`
	Verdict     string   `json:"verdict"`
}

// Verdicts of audit and chaos.
const (
	verdictGood = "ok"
	verdictBad  = "failed"
)

func viewAudit(r *proto.AuditReply) auditView {
	v := auditView{
		Run: r.Run, Steps: r.Steps, Planned: r.Planned, Epochs: r.Epochs, Examples: r.Examples, Trained: r.Trained,
		Missing: r.Missing, Duplicated: r.Duplicated, Mismatched: r.Mismatched, Generations: r.Generations,
		Skipped: r.Skipped, Ended: r.Ended,
		Findings: append([]string{}, r.Findings...), Verdict: verdictGood,
	}
	if v.Missing+v.Duplicated+v.Mismatched > 0 || len(v.Findings) > 0 {
		v.Verdict = verdictBad
	}
	return v
}

func (c auditCmd) Run(a *app) error {
	cl, err := a.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	reply, err := cl.Audit(a.ctx, &proto.AuditRequest{Run: c.ID})
	if err != nil {
		return err
	}
	v := viewAudit(reply)
	if err := a.print(v, func(w io.Writer) { showAudit(w, v) }); err != nil {
		return err
	}
	if v.Verdict != verdictGood {
		return &exitError{exitFailed, fmt.Errorf("run %s: the ledger is not what the plan says: %s", v.Run, v.Findings[0])}
	}
	return nil
}

func showAudit(w io.Writer, v auditView) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "run\t%s\n", v.Run)
	fmt.Fprintf(t, "steps\t%d of %d, in %d generations\n", v.Steps, v.Planned, v.Generations)
	if v.Ended > 0 {
		fmt.Fprintf(t, "stopped early\tafter step %d, as its validation losses say\n", v.Ended)
	}
	if v.Skipped > 0 {
		fmt.Fprintf(t, "skipped\t%d steps, whose gradients were not finite: covered, and nothing learnt\n", v.Skipped)
	}
	fmt.Fprintf(t, "examples\t%d, in %d complete epochs; %d trained on in all\n", v.Examples, v.Epochs, v.Trained)
	fmt.Fprintf(t, "missing\t%d\n", v.Missing)
	fmt.Fprintf(t, "duplicated\t%d\n", v.Duplicated)
	fmt.Fprintf(t, "mismatched\t%d\n", v.Mismatched)
	for _, f := range v.Findings {
		fmt.Fprintf(t, "found\t%s\n", f)
	}
	fmt.Fprintf(t, "verdict\t%s\n", v.Verdict)
	t.Flush()
}
