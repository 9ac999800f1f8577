package main

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"lorad/proto"
)

type runsCmd struct {
	Ls   runsLs   `cmd:"" default:"1" help:"List runs."`
	Show runsShow `cmd:"" help:"Show one run."`
	Logs runsLogs `cmd:"" help:"Print the steps of a run."`
	Stop runsStop `cmd:"" help:"Checkpoint a run and stop it; lorad train with the same job resumes it."`
}

// runView is a run as -o json shows it.
type runView struct {
	Run           string   `json:"run"`
	Name          string   `json:"name"`
	Phase         string   `json:"phase"`
	Reason        string   `json:"reason,omitempty"`
	Step          uint64   `json:"step"`
	Steps         uint64   `json:"steps"`
	Generation    uint64   `json:"generation"`
	Nodes         []string `json:"nodes"`
	Recoveries    uint64   `json:"recoveries"`
	Loss          float64  `json:"loss,omitempty"`
	EvalLoss      float64  `json:"eval_loss,omitempty"`
	BestEvalLoss  float64  `json:"best_eval_loss,omitempty"`
	BestStep      uint64   `json:"best_step,omitempty"` // that the best validation loss was found after
	Skipped       []uint64 `json:"skipped_steps,omitempty"`
	OutputDir     string   `json:"output_dir"`
	AdapterSHA256 string   `json:"adapter_sha256,omitempty"`
	Checkpoints   []uint64 `json:"checkpoints"`
	StartedMS     int64    `json:"started_unix_ms,omitempty"`
	FinishedMS    int64    `json:"finished_unix_ms,omitempty"`

	ClusterRecoveries []recoveryView `json:"cluster_recoveries,omitempty"` // that the run was caught in
}

func view(r *proto.Run, names map[string]string) runView {
	v := runView{
		Run: r.Spec.Run, Name: r.Spec.Name, Phase: phase(r.Phase), Reason: r.Reason,
		Step: r.Step, Steps: r.Spec.Steps, Generation: r.GetLease().GetGeneration(), Recoveries: r.Recoveries,
		OutputDir: outputDir(r, names), AdapterSHA256: hex.EncodeToString(r.AdapterSha256),
		StartedMS: r.StartedUnixMs, FinishedMS: r.FinishedUnixMs, Nodes: []string{}, Checkpoints: []uint64{},
	}
	for _, id := range r.GetLease().GetMembers() {
		if n := names[id]; n != "" {
			id = n
		}
		v.Nodes = append(v.Nodes, id)
	}
	for _, c := range r.Checkpoints {
		v.Checkpoints = append(v.Checkpoints, c.Step)
	}
	for _, s := range r.Ledger {
		v.Loss = s.Loss
		if s.EvalLoss != 0 {
			v.EvalLoss = s.EvalLoss
		}
		if s.EvalLoss != 0 && (v.BestStep == 0 || s.EvalLoss < v.BestEvalLoss) {
			v.BestEvalLoss, v.BestStep = s.EvalLoss, s.Step
		}
		if len(s.Bad) > 0 {
			v.Skipped = append(v.Skipped, s.Step)
		}
	}
	return v
}

// outputDir is where a run's output is or will be. A node that took a removed one's run over keeps it with its own files.
func outputDir(r *proto.Run, names map[string]string) string {
	if r.Home == "" {
		return r.Spec.OutputDir
	}
	return fmt.Sprintf("%s: runs/%s in its state directory", cmp.Or(names[r.Home], r.Home), r.Spec.Run)
}

type runsLs struct{}

func (runsLs) Run(a *app) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	names, err := c.names(a.ctx)
	if err != nil {
		return err
	}
	reply, err := c.Runs(a.ctx, &proto.RunsRequest{})
	if err != nil {
		return err
	}
	warnStale(reply.Stale)
	views := []runView{}
	for _, r := range reply.Runs {
		views = append(views, view(r, names))
	}
	return a.print(views, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "RUN\tPHASE\tSTEP\tPROGRESS\tNODES\tOUTPUT")
		for _, v := range views {
			fmt.Fprintf(t, "%s\t%s\t%d/%d\t%.0f%%\t%s\t%s\n", v.Run, v.Phase, v.Step, v.Steps,
				100*float64(v.Step)/float64(max(v.Steps, 1)), strings.Join(v.Nodes, ","), v.OutputDir)
		}
		t.Flush()
	})
}

// warnStale says that what is shown may not be the present.
func warnStale(stale bool) {
	if stale {
		fmt.Fprintln(os.Stderr, "no leader answers: this is what this node last knew")
	}
}

type runsShow struct {
	ID string `arg:"" name:"run" help:"Run id, a unique beginning of it, or its name."`
}

func (s runsShow) Run(a *app) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	cluster, err := c.Cluster(a.ctx, &proto.ClusterRequest{})
	if err != nil {
		return err
	}
	r, err := c.GetRun(a.ctx, &proto.GetRunRequest{Run: s.ID})
	if err != nil {
		return err
	}
	warnStale(r.Stale)
	v := view(r, namesOf(cluster))
	if caught := recoveries(cluster, v.Run); len(caught) > 0 {
		v.ClusterRecoveries = caught
	}
	return a.print(v, func(w io.Writer) { showRun(w, v) })
}

func showRun(w io.Writer, v runView) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(k string, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", k, fmt.Sprintf(format, args...))
	}
	row("run", "%s", v.Run)
	row("phase", "%s", v.Phase)
	if v.Reason != "" {
		row("reason", "%s", v.Reason)
	}
	row("step", "%d of %d", v.Step, v.Steps)
	if v.Loss != 0 {
		row("loss", "%.4f", v.Loss)
	}
	if v.EvalLoss != 0 {
		row("eval loss", "%.4f, at best %.4f after step %d", v.EvalLoss, v.BestEvalLoss, v.BestStep)
	}
	if len(v.Skipped) > 0 {
		row("skipped steps", "%v: a gradient was not finite", v.Skipped)
	}
	row("nodes", "%s (generation %d, %d recoveries)", strings.Join(v.Nodes, " "), v.Generation, v.Recoveries)
	row("checkpoints", "%v", v.Checkpoints)
	row("output", "%s", v.OutputDir)
	if v.AdapterSHA256 != "" {
		row("adapter sha256", "%s", v.AdapterSHA256)
	}
	if v.StartedMS > 0 && v.FinishedMS > 0 {
		row("time", "%s", time.Duration(v.FinishedMS-v.StartedMS)*time.Millisecond)
	}
	t.Flush()
	showRecoveries(w, v.ClusterRecoveries)
}

type runsLogs struct {
	ID     string `arg:"" name:"run" help:"Run id, a unique beginning of it, or its name."`
	Follow bool   `short:"f" help:"Go on until the run ends."`
}

func (l runsLogs) Run(a *app) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	p := &stepPrinter{a.stdout, a.json}
	if !l.Follow {
		r, err := c.GetRun(a.ctx, &proto.GetRunRequest{Run: l.ID})
		if err != nil {
			return err
		}
		p.show(&proto.FollowEvent{Run: r, Steps: r.Ledger})
		return nil
	}
	r, err := c.follow(a.ctx, l.ID, 0, p)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "run %s: %s\n", r.Spec.Run, phase(r.Phase))
	return outcome(r)
}

// stepPrinter prints one line a step.
type stepPrinter struct {
	w    io.Writer
	json bool
}

func (p *stepPrinter) show(e *proto.FollowEvent) {
	for _, s := range e.Steps {
		if p.json {
			json.NewEncoder(p.w).Encode(stepView(s))
			continue
		}
		line := fmt.Sprintf("step %d  loss %.4f  grad norm %.3f  lr %.3g  epoch %.2f  %d tokens in %s",
			s.Step, s.Loss, s.GradNorm, s.LearningRate, s.Epoch, s.TotalTokens, time.Duration(s.DurationUs)*time.Microsecond)
		if s.EvalLoss != 0 {
			line += fmt.Sprintf("  eval loss %.4f", s.EvalLoss)
		}
		if len(s.Bad) > 0 {
			line += fmt.Sprintf("  skipped: the gradient of micro-batch %v is not finite", s.Bad)
		}
		fmt.Fprintln(p.w, line)
	}
}

func stepView(s *proto.StepRecord) map[string]any {
	v := map[string]any{
		"step": s.Step, "loss": s.Loss, "grad_norm": s.GradNorm, "learning_rate": s.LearningRate, "epoch": s.Epoch,
		"tokens": s.Tokens, "total_tokens": s.TotalTokens, "duration_us": s.DurationUs, "compute_us": s.ComputeUs,
		"reduce_us": s.ReduceUs, "generation": s.Generation, "digest": fmt.Sprintf("%016x", s.Digest),
	}
	if s.EvalLoss != 0 {
		v["eval_loss"] = s.EvalLoss
	}
	if len(s.Bad) > 0 {
		v["skipped_micro_batches"] = s.Bad
	}
	return v
}

type runsStop struct {
	ID string `arg:"" name:"run" help:"Run id, a unique beginning of it, or its name."`
}

func (s runsStop) Run(a *app) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Stop(a.ctx, &proto.StopRequest{Run: s.ID, Reason: "stopped by lorad runs stop"})
	if err != nil {
		return err
	}
	r, err := c.follow(a.ctx, reply.Run.Spec.Run, ^uint64(0), quiet{})
	if err != nil {
		return err
	}
	return a.print(view(r, nil), func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s at step %d of %d\n", r.Spec.Run, phase(r.Phase), r.Step, r.Spec.Steps)
	})
}

type quiet struct{}

func (quiet) show(*proto.FollowEvent) {}
