package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"lorad/embedded"
	"lorad/engine"
	"lorad/eval"
	"lorad/infer"
	"lorad/proto"
)

type demoCmd struct {
	Nodes int    `default:"3" help:"Nodes of the cluster, each a process of its own."`
	Out   string `default:"lorad-demo" help:"Folder for the job, its data and the adapter." placeholder:"DIR"`
	Steps int    `help:"Steps to train (default: as the job says)." placeholder:"N"`
	Seed  uint64 `default:"42" help:"Seed of the run."`
}

// demoResult is what lorad demo -o json prints.
type demoResult struct {
	Nodes         int         `json:"nodes"`
	Steps         uint64      `json:"steps"`
	Base          eval.Report `json:"base"`
	Adapted       eval.Report `json:"adapted"`
	AdapterPath   string      `json:"adapter_path"`
	AdapterSHA256 string      `json:"adapter_sha256"`
	FirstStepSecs float64     `json:"submit_to_first_step_seconds"`
	WallSeconds   float64     `json:"wall_seconds"`
}

func (d demoCmd) Run(a *app) error {
	if d.Nodes < 1 || d.Nodes > 9 {
		return usage(fmt.Errorf("--nodes %d: the demo runs 1 to 9 processes", d.Nodes))
	}
	began := time.Now()
	out, err := filepath.Abs(d.Out)
	if err != nil {
		return err
	}
	req, err := d.lay(out)
	if err != nil {
		return err
	}
	res := demoResult{Nodes: d.Nodes, AdapterPath: filepath.Join(out, "adapter")}
	fmt.Fprintf(os.Stderr, "starting %d nodes on this machine\n", d.Nodes)
	cluster, err := startCluster(a.ctx, d.Nodes)
	if err != nil {
		return err
	}
	defer cluster.stop()
	fmt.Fprintln(os.Stderr, "asking the base model held-out legal questions")
	if res.Base, err = examine(embedded.Base(), nil); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "fine-tuning it")
	run, first, err := d.train(a.ctx, cluster, req)
	if err != nil {
		return err
	}
	cluster.stop()
	v := view(run, nil)
	res.Steps, res.AdapterSHA256, res.FirstStepSecs = run.Step, v.AdapterSHA256, first.Seconds()
	fmt.Fprintln(os.Stderr, "asking the adapted model the same questions")
	if res.Adapted, err = examine(embedded.Base(), os.DirFS(res.AdapterPath)); err != nil {
		return err
	}
	res.WallSeconds = time.Since(began).Seconds()
	return a.print(res, func(w io.Writer) { d.table(w, res) })
}

// lay puts the job and what it needs into the output folder, where the user can look at them and run them again.
func (d demoCmd) lay(out string) (*proto.SubmitRequest, error) {
	adapter := filepath.Join(out, "adapter")
	if err := clearAdapter(adapter); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(out, "base"), 0o755); err != nil {
		return nil, err
	}
	base := embedded.Base()
	names, err := fs.Glob(base, "*")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{
		"legal-train.jsonl":   embedded.LegalTrain(),
		"legal-heldout.jsonl": embedded.LegalHeldout(),
		"job.yaml":            []byte(d.job()),
	}
	for _, name := range names {
		if files["base/"+name], err = fs.ReadFile(base, name); err != nil {
			return nil, err
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(out, filepath.FromSlash(name)), data, 0o644); err != nil {
			return nil, err
		}
	}
	return &proto.SubmitRequest{JobYaml: string(files["job.yaml"]), Dir: out}, nil
}

// job is the embedded job with the options of the command line.
func (d demoCmd) job() string {
	text := embedded.JobYAML()
	text += fmt.Sprintf("seed: %d\n", d.Seed)
	if d.Steps > 0 {
		text += fmt.Sprintf("max_steps: %d\n", d.Steps)
	}
	return text
}

// clearAdapter removes what an earlier demo made, and nothing else: its checkpoints would make this one a resumption.
func clearAdapter(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	marks, _ := filepath.Glob(filepath.Join(dir, "checkpoint-*", "lorad_state.json"))
	if len(marks) == 0 {
		return usage(fmt.Errorf("%s is not empty and was not made by lorad demo; choose another --out", dir))
	}
	return os.RemoveAll(dir)
}

// train submits the job to the first node and shows it until it ends. first is the time from submission to the first
// committed step.
func (d demoCmd) train(ctx context.Context, cluster *localCluster, req *proto.SubmitRequest) (run *proto.Run, first time.Duration, err error) {
	c, err := dial(ctx, cluster.nodes[0].dir)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	names, err := c.names(ctx)
	if err != nil {
		return nil, 0, err
	}
	submitted := time.Now()
	reply, err := c.Submit(ctx, req)
	if err != nil {
		return nil, 0, err
	}
	p := newProgress(os.Stderr, names)
	w := &firstStep{progress: p}
	last, err := c.follow(ctx, reply.Run.Spec.Run, 0, w)
	p.end()
	if err != nil {
		return nil, 0, err
	}
	if last.Phase != proto.Phase_DONE {
		return nil, 0, fmt.Errorf("run %s ended %s at step %d of %d: %s", last.Spec.Run, phase(last.Phase), last.Step, last.Spec.Steps, last.Reason)
	}
	return last, w.at.Sub(submitted), nil
}

// firstStep notes when the first step was seen.
type firstStep struct {
	*progress
	at time.Time
}

func (f *firstStep) show(e *proto.FollowEvent) {
	if len(e.Steps) > 0 && f.at.IsZero() {
		f.at = time.Now()
	}
	f.progress.show(e)
}

// answerTokens bounds an answer: the longest right one has far fewer.
const answerTokens = 24

// examine asks a model the held-out questions and scores the answers and the perplexity of the right ones.
func examine(base, adapter fs.FS) (eval.Report, error) {
	m, err := infer.Open(base, adapter, infer.Options{})
	if err != nil {
		return eval.Report{}, err
	}
	records, err := heldOut()
	if err != nil {
		return eval.Report{}, err
	}
	var stop []int32
	if id, ok := m.Tokenizer.ID("\u010a"); ok { // a line feed in the byte-level alphabet
		stop = append(stop, id)
	}
	prompts := make([]string, len(records))
	for i, r := range records {
		prompts[i] = r.Prompt
	}
	answers, err := m.CompleteAll(prompts, engine.Sampling{MaxNew: answerTokens, Stop: stop})
	if err != nil {
		return eval.Report{}, err
	}
	report, err := eval.Score(eval.Legal(), records, answers)
	if err != nil {
		return report, err
	}
	report.Perplexity, err = m.Perplexity(bytes.NewReader(embedded.LegalHeldout()))
	return report, err
}

func heldOut() ([]eval.Record, error) {
	var out []eval.Record
	for dec := json.NewDecoder(bytes.NewReader(embedded.LegalHeldout())); ; {
		var r eval.Record
		err := dec.Decode(&r)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("built-in held-out records: %w", err)
		}
		out = append(out, r)
	}
}

func (d demoCmd) table(w io.Writer, r demoResult) {
	fmt.Fprintf(w, "\n%d held-out legal questions about cases the adapter has not seen:\n\n", r.Base.N)
	t := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	fmt.Fprintln(t, "\tbase\twith the adapter")
	fmt.Fprintf(t, "perplexity of the right answer\t%.2f\t%.2f\n", r.Base.Perplexity, r.Adapted.Perplexity)
	fmt.Fprintf(t, "answers exactly right\t%.0f%%\t%.0f%%\n", 100*r.Base.Accuracy, 100*r.Adapted.Accuracy)
	fmt.Fprintf(t, "answers that name somebody not in the case\t%.0f%%\t%.0f%%\n", 100*r.Base.HallucinationRate, 100*r.Adapted.HallucinationRate)
	t.Flush()
	if len(r.Base.Examples) > 0 {
		e := r.Base.Examples[0]
		fmt.Fprintf(w, "\nfor example: %s\n  base said:  %s\n  right:      %s\n", e.Question, e.Got, e.Want)
	}
	fmt.Fprintf(w, "\n%d steps on %d nodes in %.0f s; the adapter is in %s\nsha256 %s\n", r.Steps, r.Nodes, r.WallSeconds, r.AdapterPath, r.AdapterSHA256)
	fmt.Fprintf(w, "\nnext:\n  lorad demo --nodes 1                       the same adapter, to the last bit, from one node\n"+
		"  lorad generate --adapter %s \"Case: ...\\nQuestion: Who is the plaintiff?\\nAnswer:\"\n"+
		"  lorad up                                   a cluster of your own; it prints the line for the other machines\n", r.AdapterPath)
}
