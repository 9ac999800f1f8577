package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"lorad/internal/chaos"
	"lorad/job"
	"lorad/proto"
)

type chaosCmd struct {
	Seed   uint64        `default:"1" help:"Seed of the schedule: the same seed gives the same faults."`
	Faults []chaos.Kind  `default:"kill,stop,leader,restart,outage,partition,pull,torn" placeholder:"KIND,..." help:"kill: SIGKILL of one node, started again. stop: SIGSTOP of one node for 1 to 6 s. leader: SIGKILL of the Raft leader, started again. restart: SIGTERM of one node, started again. outage: SIGKILL of all nodes at once, all started again. partition: a minority of the nodes is cut off for 1 to 6 s. pull: one node is. torn: SIGKILL of one node whose newest checkpoint is damaged before it is started again (default: all of them)."`
	Count  int           `default:"20" help:"How many faults."`
	Every  time.Duration `help:"A fault so often, at most --count of them (default: --count faults, evenly over the run)." placeholder:"TIME"`
	Nodes  int           `default:"3" help:"Nodes of the cluster, each a process of its own."`
	Steps  int           `help:"Steps to train (default: 300 of the embedded job; of --job, as it says)." placeholder:"N"`
	Job    string        `help:"Job file to train instead of the embedded one; its output_dir is not touched." placeholder:"FILE"`
	Out    string        `default:"lorad-chaos" help:"Folder for the job, both results and the nodes' logs." placeholder:"DIR"`
}

// embeddedSteps of the embedded job, undisturbed and with 20 faults, take less than three minutes on two cores.
const embeddedSteps = 300

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
	Nodes         int         `json:"nodes"`
	Steps         uint64      `json:"steps"`
	Faults        []faultView `json:"faults"`
	RecoveredP50  int64       `json:"recovered_ms_p50"`
	RecoveredP99  int64       `json:"recovered_ms_p99"`
	RecoveredMax  int64       `json:"recovered_ms_max"`
	Generations   uint64      `json:"generations"`
	LostSteps     int         `json:"lost_steps"`
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

func (c chaosCmd) Run(a *app) error {
	began := time.Now()
	if c.Every < 0 {
		return usage(fmt.Errorf("--every %s: give a time like 5s", c.Every))
	}
	clean, disturbed, err := c.lay()
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "training undisturbed on one node, to know the right result")
	reference, err := c.undisturbed(a.ctx, clean)
	if err != nil {
		return err
	}
	cleanTime := time.Since(began)
	spec := chaos.Spec{Seed: c.Seed, Kinds: c.Faults, Count: c.Count, Nodes: c.Nodes, Steps: reference.Spec.Steps}
	faults, err := chaos.Schedule(spec)
	if err != nil {
		return usage(err)
	}
	fmt.Fprintf(os.Stderr, "training on %d nodes, with %d faults\n", c.Nodes, c.Count)
	seen, res, err := c.disturb(a.ctx, disturbed, faults, reference)
	if err != nil {
		return err
	}
	res.Seed, res.Nodes, res.Steps = c.Seed, c.Nodes, reference.Spec.Steps
	res.CleanSeconds, res.WallSeconds = cleanTime.Seconds(), time.Since(began).Seconds()
	return c.conclude(a, seen, res)
}

// lay puts the embedded job into the output folder, or takes the user's, and returns the requests for the undisturbed
// and the disturbed run: the same job, but for where the result goes.
func (c chaosCmd) lay() (clean, disturbed *proto.SubmitRequest, err error) {
	out, err := filepath.Abs(c.Out)
	if err != nil {
		return nil, nil, err
	}
	j, err := c.job(out)
	if err != nil {
		return nil, nil, err
	}
	if j.MaxSteps = cmp.Or(c.Steps, j.MaxSteps); c.Job == "" {
		j.MaxSteps = cmp.Or(c.Steps, embeddedSteps)
	}
	request := func(name string) *proto.SubmitRequest {
		j.OutputDir = filepath.Join(out, name)
		if e := clearAdapter(j.OutputDir); e != nil {
			err = e
		}
		return &proto.SubmitRequest{JobYaml: string(j.YAML()), Dir: out}
	}
	clean, disturbed = request("clean"), request("adapter")
	return clean, disturbed, err
}

// job is the job to train, with absolute paths.
func (c chaosCmd) job(out string) (job.Job, error) {
	if c.Job != "" {
		text, err := os.ReadFile(c.Job)
		if err != nil {
			return job.Job{}, err
		}
		path, err := filepath.Abs(c.Job)
		if err != nil {
			return job.Job{}, err
		}
		if err := os.MkdirAll(out, 0o755); err != nil {
			return job.Job{}, err
		}
		return parseJob(text, filepath.Dir(path))
	}
	req, err := demoCmd{Seed: 42}.lay(out)
	if err != nil {
		return job.Job{}, err
	}
	return parseJob([]byte(req.JobYaml), out)
}

func parseJob(text []byte, dir string) (job.Job, error) {
	j, err := job.Parse(text)
	if err != nil {
		return j, usage(err)
	}
	return j.Resolve(dir, nil), nil
}

// undisturbed trains on one node and returns the run with its ledger.
func (c chaosCmd) undisturbed(ctx context.Context, req *proto.SubmitRequest) (*proto.Run, error) {
	cluster, err := startCluster(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer cluster.stop()
	run, _, err := demoCmd{}.train(ctx, cluster, req)
	if err != nil {
		return nil, err
	}
	cl, err := dial(ctx, cluster.nodes[0].dir)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return cl.GetRun(ctx, &proto.GetRunRequest{Run: run.Spec.Run})
}

// disturb trains on a cluster that is put through the faults, and looks at what came of it. The error is that of the
// experiment, not of what it found.
func (c chaosCmd) disturb(ctx context.Context, req *proto.SubmitRequest, faults []chaos.Fault, reference *proto.Run) (chaos.Seen, chaosResult, error) {
	e, err := startExperiment(ctx, filepath.Dir(outputOf(req)), c.Nodes, c.Faults)
	if err != nil {
		return chaos.Seen{}, chaosResult{}, err
	}
	defer e.end()
	if err := e.submit(req); err != nil {
		return chaos.Seen{}, chaosResult{}, err
	}
	seen := chaos.Seen{Planned: len(faults)}
	if c.Every > 0 {
		seen.Planned = 1 // as many as fit
	}
	res := chaosResult{Faults: []faultView{}}
	for i, f := range faults {
		if !e.due(f, c.Every) {
			break
		}
		v := e.inject(f)
		res.Faults = append(res.Faults, v)
		fmt.Fprintf(os.Stderr, "fault %d of %d: %s\n", i+1, len(faults), describe(v))
		if v.RecoveredMS < 0 {
			seen.Unrecovered++
			break
		}
	}
	seen.Faults = len(res.Faults)
	if ctx.Err() == nil {
		e.finish(&seen, &res, reference)
	}
	return seen, res, ctx.Err()
}

func describe(f faultView) string {
	text := fmt.Sprintf("%s of %s after step %d: ", f.Kind, f.Node, f.AtStep)
	if f.RecoveredMS < 0 {
		return text + "no step was committed any more"
	}
	return text + fmt.Sprintf("next step committed after %.1f s", float64(f.RecoveredMS)/1000)
}

func outputOf(req *proto.SubmitRequest) string {
	j, err := job.Parse([]byte(req.JobYaml))
	if err != nil {
		return req.Dir
	}
	return j.OutputDir
}

// weights is the SHA-256 of what a run wrote, read from the disk.
func weights(dir string) string {
	for _, name := range []string{"adapter_model.safetensors", "model.safetensors"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return ""
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	return ""
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
	var times []time.Duration
	for _, f := range res.Faults {
		if f.RecoveredMS >= 0 {
			times = append(times, time.Duration(f.RecoveredMS)*time.Millisecond)
		}
	}
	res.RecoveredP50, res.RecoveredP99 = chaos.Quantile(times, 0.5).Milliseconds(), chaos.Quantile(times, 0.99).Milliseconds()
	res.RecoveredMax = chaos.Quantile(times, 1).Milliseconds()
	if err := a.print(res, func(w io.Writer) { c.table(w, res) }); err != nil {
		return err
	}
	if res.Verdict != verdictGood {
		return &exitError{exitFailed, fmt.Errorf("chaos with seed %d: %s; the nodes' logs are in %s", c.Seed, strings.Join(res.Findings, "; "), c.Out)}
	}
	return nil
}

func (c chaosCmd) table(w io.Writer, r chaosResult) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "faults\t%d (seed %d), on %d nodes over %d steps in %d generations\n", len(r.Faults), r.Seed, r.Nodes, r.Steps, r.Generations)
	fmt.Fprintf(t, "next step\tafter %d ms in the middle, %d ms at most\n", r.RecoveredP50, r.RecoveredMax)
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
