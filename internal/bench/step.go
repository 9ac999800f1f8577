package bench

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"lorad/allreduce"
	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/estimate"
	"lorad/engine/llama"
	"lorad/engine/optim"
	"lorad/node/replica"
	"lorad/node/tally"
)

// Phases is where the time of a step goes, in milliseconds.
type Phases struct {
	ForwardGemm       float64 `json:"forward_gemm"`
	ForwardAttention  float64 `json:"forward_attention"`
	ForwardRowwise    float64 `json:"forward_rowwise"`
	Head              float64 `json:"head"` // both ways, and the loss
	BackwardGemm      float64 `json:"backward_gemm"`
	BackwardAttention float64 `json:"backward_attention"`
	BackwardRowwise   float64 `json:"backward_rowwise"`
	Optimiser         float64 `json:"optimiser"` // the exact sum, clipping, AdamW
}

// Sample is one step.
type Sample struct {
	Millis   float64 `json:"ms"`
	Tokens   int     `json:"tokens"`
	Gradient float64 `json:"gradient_ms"` // of which: until the gradient is there
	Useful   float64 `json:"useful_gflop"`
	RSSMB    float64 `json:"peak_rss_mb"` // of the process, so far
	Phases   Phases  `json:"phases_ms"`
}

// Runner makes steps as a node in a ring of one does: gradient, exact sum, clipping, AdamW.
type Runner struct {
	trainer engine.Trainer
	replica *replica.Replica
	ring    *allreduce.Group
	tally   *tally.Tally
	sum     allreduce.Sum
	grad    []float32
	batch   engine.Batch
	useful  float64
	profile llama.Profile
}

// NewRunner builds the model of a case for steps of sequences of these lengths, on so many threads (0: all).
func NewRunner(c Case, lengths []int, threads int) (*Runner, error) {
	cfg, weights, err := c.load()
	if err != nil {
		return nil, err
	}
	shape := estimate.Model{Config: cfg, Adapter: c.adapter()}
	r := &Runner{batch: tokens(cfg.VocabSize, lengths)}
	r.useful = shape.Work(estimate.Batch{Lengths: lengths, Labelled: r.batch.Labelled()}).Total()
	largest := llama.Batch{Rows: len(r.batch.Tokens), Labelled: r.batch.Labelled(), Longest: slices.Max(lengths)}
	plan, err := estimate.Plan(estimate.Job{Model: shape, Batch: largest, Threads: threads})
	if err != nil {
		return nil, err
	}
	debug.SetMemoryLimit(plan.Limit())
	m, err := llama.New[float32](cfg, weights, shape.Adapter, cpu.New(threads))
	if err != nil {
		return nil, err
	}
	m.Prepare(largest, plan.Keep())
	m.SetProfile(&r.profile)
	r.trainer = m
	return r, r.alone(threads)
}

// alone is the rest of a node: a ring of one, and the optimiser, on so many threads (0: all).
func (r *Runner) alone(threads int) (err error) {
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	r.replica = replica.New(r.trainer, replica.Rule{
		AdamW:    optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8},
		Schedule: optim.Schedule{Kind: "constant", Peak: 1e-4, Total: 1 << 30}, MaxNorm: 1, Threads: threads,
	})
	r.tally, r.grad = tally.New(1, -40, threads, r.trainer), tally.Room(r.trainer)
	r.ring, err = allreduce.NewGroup(allreduce.Config{Members: []string{"alone"}}, allreduce.Links{})
	return err
}

// tokens is a batch in which every token but the first of a sequence is to be predicted.
func tokens(vocab int, lengths []int) engine.Batch {
	b := engine.Batch{Starts: []int32{0}}
	for _, n := range lengths {
		for i := range n {
			at := len(b.Tokens)
			b.Tokens = append(b.Tokens, int32(at*7919%vocab))
			b.Labels = append(b.Labels, int32((at+1)*7919%vocab))
			if i == n-1 {
				b.Labels[at] = engine.Ignore
			}
		}
		b.Starts = append(b.Starts, int32(len(b.Tokens)))
	}
	return b
}

// Step makes one step.
func (r *Runner) Step() (Sample, error) {
	r.profile = llama.Profile{}
	began := time.Now()
	labelled := r.batch.Labelled()
	r.tally.Reset(1, nil)
	g, err := tally.Compute(r.trainer, r.batch, 1/float32(labelled), engine.Key{Step: uint32(r.replica.Done())}, r.grad)
	if err != nil {
		return Sample{}, err
	}
	computed := time.Now()
	if err := r.tally.Add(0, g, int64(labelled), int64(len(r.batch.Tokens))); err != nil {
		return Sample{}, err
	}
	if _, err := r.tally.Reduce(context.Background(), r.ring, allreduce.OpID{Step: r.replica.Done(), Kind: 1}, &r.sum); err != nil {
		return Sample{}, err
	}
	r.replica.Step(r.sum.Grad)
	s := Sample{Millis: millis(time.Since(began)), Tokens: len(r.batch.Tokens), Useful: r.useful / 1e9, RSSMB: PeakRSS() / 1e6}
	s.Gradient = millis(computed.Sub(began))
	s.Phases = phases(&r.profile)
	s.Phases.Optimiser = millis(time.Since(computed))
	return s, nil
}

func phases(p *llama.Profile) Phases {
	at := func(s llama.Stage, k llama.Kind) float64 { return millis(p.Spent[s][k]) }
	return Phases{
		ForwardGemm: at(llama.Forward, llama.Gemm), ForwardAttention: at(llama.Forward, llama.Attention), ForwardRowwise: at(llama.Forward, llama.Rowwise),
		Head:         at(llama.Head, llama.Gemm) + at(llama.Head, llama.Rowwise),
		BackwardGemm: at(llama.Backward, llama.Gemm), BackwardAttention: at(llama.Backward, llama.Attention), BackwardRowwise: at(llama.Backward, llama.Rowwise),
	}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
