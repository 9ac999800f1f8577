package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"lorad/engine/cpu"
	"lorad/engine/estimate"
	"lorad/job"
	"lorad/model"
	"lorad/node"
	"lorad/node/recipe"
	"lorad/proto"
)

type planCmd struct {
	Job     string  `arg:"" help:"Job file (YAML). The base model's folder needs no more than its config.json."`
	Threads int     `help:"Threads of the engine (default: all cores)." placeholder:"N"`
	VRAM    float64 `name:"gpu-memory" help:"Plan for a GPU with so many GB free too (default: this machine's, if it has one)." placeholder:"GB"`
}

// planned is what lorad plan -o json prints. Bytes.
type planned struct {
	Parameters int64        `json:"parameters"`
	Trainable  int          `json:"trainable_parameters"`
	Share      float64      `json:"trainable_share"`
	Rows       int          `json:"largest_micro_batch_tokens"`
	Labelled   int          `json:"largest_micro_batch_labelled"`
	Looked     bool         `json:"from_data"` // false: every example is taken to be as long as it may be
	Steps      int          `json:"steps,omitempty"`
	StepS      float64      `json:"step_seconds,omitempty"` // on this machine, roughly
	Nodes      []nodeMemory `json:"nodes"`
	GPU        *gpuMemory   `json:"gpu,omitempty"`
}

type nodeMemory struct {
	Name  string          `json:"name"`
	Spare int64           `json:"spare_bytes"` // 0: not known
	Fits  bool            `json:"fits"`
	Bytes estimate.Memory `json:"memory"`
}

func (p planCmd) Run(a *app) error {
	defer a.endAtOnce()()
	j, err := readJob(p.Job)
	if err != nil {
		return err
	}
	r, cfg, err := p.recipe(j)
	if err != nil {
		return usage(err)
	}
	out := planned{Parameters: weightsOf(cfg), Rows: j.MicroBatchSize * j.SequenceLen, Labelled: j.MicroBatchSize * j.SequenceLen, Looked: r != nil}
	if r != nil {
		top := r.Largest()
		out.Rows, out.Labelled, out.Steps = top.Rows, top.Labelled, r.Plan.Steps()
		if out.StepS, err = p.stepSeconds(j, r); err != nil {
			return usage(err)
		}
	}
	for _, n := range p.nodes(a) {
		if n.Bytes, err = p.memory(j, r, cfg, n.Spare); err != nil {
			return usage(err)
		}
		n.Fits = n.Spare == 0 || n.Bytes.Peak <= n.Spare
		out.Trainable = n.Bytes.Trainable
		out.Nodes = append(out.Nodes, n)
	}
	if out.GPU, err = p.gpu(j, r, cfg); err != nil {
		return usage(err)
	}
	out.Share = float64(out.Trainable) / float64(out.Parameters)
	return a.print(out, func(w io.Writer) { out.table(w) })
}

// recipe loads the job's inputs, or, of a folder that has no more than a config.json, that.
func (p planCmd) recipe(j job.Job) (*recipe.Recipe, model.Config, error) {
	base := baseFolder(j.BaseModel)
	text, err := fs.ReadFile(base, "config.json")
	if err != nil {
		return nil, model.Config{}, fmt.Errorf("base_model %s: %w", j.BaseModel, err)
	}
	cfg, err := model.ReadConfig(text)
	if err != nil {
		return nil, cfg, fmt.Errorf("base_model %s: %w", j.BaseModel, err)
	}
	if _, err := fs.Stat(base, "tokenizer.json"); errors.Is(err, fs.ErrNotExist) {
		return nil, cfg, nil
	}
	r, err := recipe.Load(j, jobInputs{base, adapterFolder(j.LoraModelDir)})
	return r, cfg, err
}

// jobInputs shows a job's files as a recipe wants them: folders under their portable names, data by its path.
type jobInputs struct{ base, adapter fs.FS }

func (f jobInputs) Open(name string) (fs.File, error) {
	if filepath.IsAbs(name) {
		return os.Open(name)
	}
	dir, rest, _ := strings.Cut(name, "/")
	if rest == "" {
		rest = "."
	}
	switch {
	case dir == recipe.BaseDir:
		return f.base.Open(rest)
	case dir == recipe.AdapterDir && f.adapter != nil:
		return f.adapter.Open(rest)
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (p planCmd) memory(j job.Job, r *recipe.Recipe, cfg model.Config, spare int64) (estimate.Memory, error) {
	threads := p.Threads
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	if r == nil {
		return recipe.Foresee(j, cfg, threads, spare)
	}
	return r.Memory(threads, spare)
}

// nodes are those of the cluster, or this machine. Of others only the whole memory is known.
func (p planCmd) nodes(a *app) []nodeMemory {
	here := []nodeMemory{{Name: "this machine", Spare: node.SpareMemory()}}
	c, err := a.dial()
	if err != nil {
		return here
	}
	defer c.Close()
	reply, err := c.Cluster(a.ctx, &proto.ClusterRequest{})
	if err != nil {
		return here
	}
	var out []nodeMemory
	for _, s := range reply.Nodes {
		n := nodeMemory{Name: s.Node.Name, Spare: int64(s.Node.MemoryBytes / 10 * 9)}
		if s.Self {
			n.Spare = node.SpareMemory()
		}
		out = append(out, n)
	}
	return out
}

// usualShare is the share of a machine's peak that steps reach as a rule: see lorad bench.
const usualShare = 0.6

func (p planCmd) stepSeconds(j job.Job, r *recipe.Recipe) (float64, error) {
	work, err := r.WorkOfEpoch()
	if err != nil || len(r.Set.Train) == 0 {
		return 0, err
	}
	perExample := work / float64(len(r.Set.Train))
	peak := cpu.MeasurePeak(p.Threads, 200*time.Millisecond).F32
	return perExample * float64(j.GlobalBatchSize) / (usualShare * peak), nil
}

func weightsOf(cfg model.Config) (n int64) {
	for _, t := range cfg.Tensors() {
		size := int64(1)
		for _, d := range t.Shape {
			size *= int64(d)
		}
		n += size
	}
	return n
}

func (p planned) table(w io.Writer) {
	fmt.Fprintf(w, "%.1f M parameters, %.2f M of them trained (%.2f%%)\n", float64(p.Parameters)/1e6, float64(p.Trainable)/1e6, 100*p.Share)
	how := "the largest in the data"
	if !p.Looked {
		how = "if every example is as long as it may be"
	}
	fmt.Fprintf(w, "a micro-batch of up to %d tokens, %d to learn (%s)\n", p.Rows, p.Labelled, how)
	if p.StepS > 0 {
		fmt.Fprintf(w, "%d steps of about %s on this machine alone\n", p.Steps, time.Duration(p.StepS*float64(time.Second)).Round(time.Millisecond))
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 4, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "MB\t")
	for _, n := range p.Nodes {
		fmt.Fprintf(t, "%s\t", n.Name)
	}
	fmt.Fprintln(t)
	for _, row := range memoryRows {
		fmt.Fprintf(t, "%s\t", row.name)
		for _, n := range p.Nodes {
			fmt.Fprintf(t, "%.1f\t", float64(row.of(n))/1e6)
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	for _, n := range p.Nodes {
		n.remarks(w)
	}
	if p.GPU != nil {
		p.GPU.print(w)
	}
}

var memoryRows = []struct {
	name string
	of   func(nodeMemory) int64
}{
	{"weights", func(n nodeMemory) int64 { return n.Bytes.Weights }},
	{"adapter", func(n nodeMemory) int64 { return n.Bytes.Adapter }},
	{"gradient", func(n nodeMemory) int64 { return n.Bytes.Gradient }},
	{"optimiser", func(n nodeMemory) int64 { return n.Bytes.Optimiser }},
	{"activations", func(n nodeMemory) int64 { return n.Bytes.Activations }},
	{"examples", func(n nodeMemory) int64 { return n.Bytes.Data }},
	{"program", func(n nodeMemory) int64 { return n.Bytes.Program }},
	{"peak", func(n nodeMemory) int64 { return n.Bytes.Peak }},
	{"to spare", func(n nodeMemory) int64 { return n.Spare }},
}

func (n nodeMemory) remarks(w io.Writer) {
	if m := n.Bytes; m.Recomputed > 0 {
		fmt.Fprintf(w, "\n%s: %d of %d layers keep only their input and are computed again in the backward pass: about a third more work for each, the same bits\n",
			n.Name, m.Recomputed, m.Layers)
	}
	if !n.Fits {
		fmt.Fprintf(w, "\n%s: does not fit; try load_in_4bit: true, a smaller micro_batch_size or sequence_len (global_batch_size stays as it is), optimizer: adamw_8bit\n", n.Name)
	}
}
