package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"lorad/internal/chaos"
	"lorad/job"
	"lorad/proto"
)

type chaosCmd struct {
	Seed    uint64        `default:"1" help:"Seed of the schedule: the same seed gives the same faults."`
	Series  string        `placeholder:"NAME" help:"Measure recovery from one kind of fault again and again: worker (100 kills), leader (100), partition (100, 2 of 5 nodes), outage (50), goodput (a fault every 30 s). It decides about faults, nodes, count and steps where they are not given."`
	Faults  []chaos.Kind  `placeholder:"KIND,..." help:"kill: SIGKILL of one node, started again. stop: SIGSTOP of one node for 1 to 6 s. leader: SIGKILL of the Raft leader, started again. restart: SIGTERM of one node, started again. outage: SIGKILL of all nodes at once, all started again. partition: a minority of the nodes is cut off for 1 to 6 s. pull: one node is. torn: SIGKILL of one node whose newest checkpoint is damaged before it is started again. disk: the disk of one node is full for 1 to 6 s. wipe: SIGKILL of one node that loses its disk and joins anew (default: all of them)."`
	Count   int           `help:"How many faults (default: 20)." placeholder:"N"`
	Every   time.Duration `help:"A fault so often, at most --count of them (default: --count faults, evenly over the run)." placeholder:"TIME"`
	Nodes   int           `help:"Nodes of the cluster, each a process of its own (default: 3)." placeholder:"N"`
	Latency time.Duration `help:"How long a byte takes from one node to another, as if they were far apart (default: no longer than it takes)." placeholder:"TIME"`
	Steps   int           `help:"Steps to train (default: 300 of the embedded job; of --job, as it says)." placeholder:"N"`
	Job     string        `help:"Job file to train instead of the embedded one; its output_dir is not touched." placeholder:"FILE"`
	Out     string        `default:"lorad-chaos" help:"Folder for the job, both results and the nodes' logs." placeholder:"DIR"`

	series chaos.Series // of the name, or none
}

const (
	defaultCount, defaultNodes = 20, 3
	// embeddedSteps of the embedded job, undisturbed and with 20 faults, take less than three minutes on two cores.
	embeddedSteps = 300
	// mostLatency is what nodes stand: a ping is given 1 s.
	mostLatency = 200 * time.Millisecond
)

func (c chaosCmd) Run(a *app) error {
	began := time.Now()
	c, err := c.complete()
	if err != nil {
		return usage(err)
	}
	clean, disturbed, err := c.lay()
	if err != nil {
		return err
	}
	reference, err := c.reference(a.ctx, clean)
	if err != nil {
		return err
	}
	cleanTime := time.Since(began)
	spec := chaos.Spec{Seed: c.Seed, Kinds: c.Faults, Count: c.Count, Nodes: c.Nodes, Steps: reference.Spec.Steps, Brief: c.Series != ""}
	faults, err := chaos.Schedule(spec)
	if err != nil {
		return usage(err)
	}
	fmt.Fprintf(os.Stderr, "training on %d nodes, with %d faults\n", c.Nodes, c.Count)
	seen, res, err := c.disturb(a.ctx, disturbed, faults, reference)
	if err != nil {
		return err
	}
	res.Seed, res.Series, res.Nodes, res.Steps = c.Seed, c.Series, c.Nodes, reference.Spec.Steps
	res.CleanSeconds, res.WallSeconds = cleanTime.Seconds(), time.Since(began).Seconds()
	return c.conclude(a, seen, res)
}

// complete fills in what was not given.
func (c chaosCmd) complete() (chaosCmd, error) {
	var err error
	if c.Every < 0 {
		return c, fmt.Errorf("--every %s: give a time like 5s", c.Every)
	}
	if c.Latency < 0 || c.Latency > mostLatency {
		return c, fmt.Errorf("--latency %s: give a time up to %s, as 10ms", c.Latency, mostLatency)
	}
	if c.Series != "" {
		if c.series, err = chaos.SeriesNamed(c.Series); err != nil {
			return c, err
		}
		if c.Job != "" {
			return c, errors.New("--job: a series has a job of its own")
		}
	}
	if len(c.Faults) == 0 {
		if c.Faults = c.series.Kinds; c.Series == "" {
			c.Faults = chaos.Kinds()
		}
	}
	c.Count, c.Nodes = cmp.Or(c.Count, c.series.Count, defaultCount), cmp.Or(c.Nodes, c.series.Nodes, defaultNodes)
	c.Every = cmp.Or(c.Every, c.series.Every)
	if c.Job == "" {
		c.Steps = cmp.Or(c.Steps, c.series.Steps, embeddedSteps)
	}
	return c, nil
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
	j.MaxSteps = cmp.Or(c.Steps, j.MaxSteps)
	if c.Series != "" { // steps of 50 to 100 ms on two cores
		j.GlobalBatchSize, j.MicroBatchSize, j.GradientAccumulation, j.SaveSteps = 6, 1, 6, 50
	}
	request := func(name string) *proto.SubmitRequest {
		j.OutputDir = filepath.Join(out, name)
		return &proto.SubmitRequest{JobYaml: string(j.YAML()), Dir: out}
	}
	clean, disturbed = request("clean"), request("adapter")
	return clean, disturbed, clearAdapter(j.OutputDir)
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

// disturb trains on a cluster that is put through the faults, and looks at what came of it. The error is that of the
// experiment, not of what it found.
func (c chaosCmd) disturb(ctx context.Context, req *proto.SubmitRequest, faults []chaos.Fault, reference *proto.Run) (chaos.Seen, chaosResult, error) {
	e, err := startExperiment(ctx, filepath.Dir(outputOf(req)), c)
	if err != nil {
		return chaos.Seen{}, chaosResult{}, err
	}
	defer e.end()
	if err := e.submit(req); err != nil {
		return chaos.Seen{}, chaosResult{}, err
	}
	seen := chaos.Seen{Planned: len(faults)}
	if c.Every > 0 && c.Series == "" {
		seen.Planned = 1 // as many as fit
	}
	res := chaosResult{Faults: []faultView{}}
	for i, f := range faults {
		if !e.due(f) {
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
