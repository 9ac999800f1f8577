package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"lorad/engine/cpu"
	"lorad/internal/bench"
)

type benchCmd struct {
	Quick   bool   `help:"A quarter of the tokens and of the time: done in 40 s."`
	Case    string `help:"Only this kind of step, MODEL/DTYPE/ADAPTER as the table names it." placeholder:"CASE"`
	Threads int    `help:"Threads (default: all cores)." placeholder:"N"`
	GPU     string `help:"Steps on this machine's GPU instead: all kinds, or one, DTYPE/SEQUENCESxLENGTH such as bf16/4x512." placeholder:"all|CASE"`
	Base    string `name:"base-model" help:"With --gpu: random weights in the shape of the model in this folder, instead of TinyLlama 1.1B's." placeholder:"DIR"`
	Tune    bool   `help:"With --gpu: look for faster ways to the same bits first, and keep them for this user's runs."`
	Tiny    bool   `help:"With --gpu: a model of a few thousand parameters, to see that all runs." hidden:""`
	Steps   bool   `help:"Make one step of --case for each line on standard input, and print it as a line of JSON." hidden:""`
}

// benchResult is what lorad bench -o json prints.
type benchResult struct {
	Peak  benchPeak   `json:"peak"`
	Steps []benchStep `json:"steps"`

	products  []bench.Product
	decodings []bench.Decoding // of bench.DecodeCases, if asked for
}

type benchPeak struct {
	F32       float64 `json:"f32_gflops"`
	BF16      float64 `json:"bf16_gflops"` // 0: the processor has no such instruction
	Bandwidth float64 `json:"bandwidth_gbs"`
}

// of is the peak that a step of a data type is measured against: that of its products.
func (p benchPeak) of(dtype string) float64 {
	if dtype == "f32" || p.BF16 == 0 {
		return p.F32
	}
	return p.BF16
}

type benchStep struct {
	bench.Case
	TokensPerS  float64      `json:"tokens_per_s"`
	ShareOfPeak float64      `json:"share_of_peak"`
	PeakRSSMB   float64      `json:"peak_rss_mb"`
	Phases      bench.Phases `json:"phases_ms"`
}

func (b benchCmd) Run(a *app) error {
	if b.GPU != "" {
		return b.onGPU(a)
	}
	cases := bench.Cases()
	if b.Case != "" {
		c, err := bench.ParseCase(b.Case)
		if err != nil {
			return usage(err)
		}
		cases = []bench.Case{c}
	}
	if b.Steps {
		if len(cases) != 1 {
			return usage(fmt.Errorf("--steps needs --case"))
		}
		return b.steps(a.stdout, os.Stdin, cases[0])
	}
	res, err := b.measure(a, cases)
	if err != nil {
		return err
	}
	return a.print(res, func(w io.Writer) { res.table(w) })
}

// pace is how long a part of the benchmark takes.
func (b benchCmd) pace(full time.Duration) time.Duration {
	if b.Quick {
		return full / 5
	}
	return full
}

// measure takes the peak before and after everything else: the machine may be shared, and the best counts.
func (b benchCmd) measure(a *app, cases []bench.Case) (benchResult, error) {
	var res benchResult
	fmt.Fprintln(os.Stderr, "measuring the machine's peak")
	res.peak(b)
	rows := 1024
	if b.Quick {
		rows /= 4
	}
	res.products = bench.Products(bench.LlamaConfig(), rows, 16, b.Threads, b.pace(time.Second))
	samples := make([][]bench.Sample, len(cases))
	for i, c := range cases {
		fmt.Fprintf(os.Stderr, "measuring steps of %s\n", c)
		var err error
		if samples[i], err = b.sample(a, c); err != nil {
			return res, err
		}
	}
	if err := res.decode(a, b); err != nil {
		return res, err
	}
	res.peak(b)
	for i, c := range cases {
		res.Steps = append(res.Steps, summary(c, samples[i], res.Peak))
	}
	return res, nil
}

func (r *benchResult) peak(b benchCmd) {
	p := cpu.MeasurePeak(b.Threads, b.pace(2*time.Second))
	r.Peak.F32, r.Peak.BF16 = max(r.Peak.F32, p.F32/1e9), max(r.Peak.BF16, p.BF16/1e9)
	r.Peak.Bandwidth = max(r.Peak.Bandwidth, p.Bandwidth/1e9)
}

// sample makes steps in a process of their own for a while; the first, in which memory is taken, does not count.
func (b benchCmd) sample(a *app, c bench.Case) ([]bench.Sample, error) {
	w, err := b.worker(a, c)
	if err != nil {
		return nil, err
	}
	defer w.stop()
	var all []bench.Sample
	for end := time.Now().Add(b.pace(15 * time.Second)); len(all) < 2 || time.Now().Before(end) && len(all) < 200; {
		var s bench.Sample
		if err := w.ask(&s); err != nil {
			return nil, fmt.Errorf("bench: %s: %w", c, err)
		}
		all = append(all, s)
	}
	return all[1:], nil
}

// decode measures generation, unless one kind of step was asked for, or speed.
func (r *benchResult) decode(a *app, b benchCmd) error {
	if b.Quick || b.Case != "" || a.json {
		return nil
	}
	for _, c := range bench.DecodeCases() {
		fmt.Fprintf(os.Stderr, "measuring generation with %s in %s\n", c.Model, c.DType)
		w, err := b.worker(a, c)
		if err != nil {
			return err
		}
		var d bench.Decoding
		for range 2 { // the first takes memory
			if err = w.ask(&d); err != nil {
				break
			}
		}
		w.stop()
		if err != nil {
			return fmt.Errorf("bench: %s: %w", c, err)
		}
		r.decodings = append(r.decodings, d)
	}
	return nil
}

// benchWorker is a process that makes steps when it is told to.
type benchWorker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func (b benchCmd) worker(a *app, c bench.Case) (*benchWorker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"bench", "--steps", "--case", c.String(), "--threads", strconv.Itoa(b.Threads)}
	if b.Quick {
		args = append(args, "--quick")
	}
	w := &benchWorker{cmd: exec.CommandContext(a.ctx, self, args...)}
	w.cmd.Stderr = os.Stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = json.NewDecoder(out)
	return w, w.cmd.Start()
}

// ask sends a line and reads the answer.
func (w *benchWorker) ask(answer any) error {
	if _, err := io.WriteString(w.in, "\n"); err != nil {
		return err
	}
	return w.out.Decode(answer)
}

func (w *benchWorker) stop() {
	w.in.Close()
	w.cmd.Wait() // it ends with its input; what it said counts, not how it ended
}

// steps is the worker's side.
func (b benchCmd) steps(out io.Writer, in io.Reader, c bench.Case) error {
	if c.Adapter == "none" {
		return b.decode(out, in, c)
	}
	r, err := bench.NewRunner(c, c.Lengths(b.Quick), b.Threads)
	if err != nil {
		return err
	}
	return each(out, in, func() (any, error) { return r.Step() })
}

func (b benchCmd) decode(out io.Writer, in io.Reader, c bench.Case) error {
	d, err := bench.NewDecoder(c, b.Threads)
	if err != nil {
		return err
	}
	return each(out, in, func() (any, error) { return d.Decode() })
}

// each answers every line of in.
func each(out io.Writer, in io.Reader, f func() (any, error)) error {
	enc := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		answer, err := f()
		if err != nil {
			return err
		}
		if err := enc.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

// summary takes the median of everything that varies.
func summary(c bench.Case, all []bench.Sample, p benchPeak) benchStep {
	slices.SortFunc(all, func(x, y bench.Sample) int { return int((x.Millis - y.Millis) * 1e6) })
	mid := all[len(all)/2]
	return benchStep{
		Case: c, TokensPerS: 1000 * float64(mid.Tokens) / mid.Millis, ShareOfPeak: 1000 * mid.Useful / mid.Millis / p.of(c.DType),
		PeakRSSMB: all[len(all)-1].RSSMB, Phases: mid.Phases,
	}
}

func (r benchResult) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	fmt.Fprintf(t, "peak\tf32 %.0f GFLOP/s\tbf16 %.0f GFLOP/s\tmemory %.1f GB/s\t\n\n", r.Peak.F32, r.Peak.BF16, r.Peak.Bandwidth)
	fmt.Fprintln(t, "product, f32\trows x columns x inner\tGFLOP/s\tof peak\t")
	for _, p := range r.products {
		fmt.Fprintf(t, "%s\t%d x %d x %d\t%.0f\t%.0f%%\t\n", p.Name, p.M, p.N, p.K, p.GFLOPS, 100*p.GFLOPS/r.Peak.F32)
	}
	fmt.Fprintln(t, "\nstep\ttokens/s\tof peak\tpeak RSS\tforward: products\tattention\trowwise\thead\tbackward: products\tattention\trowwise\toptimiser\t")
	for _, s := range r.Steps {
		p := s.Phases
		fmt.Fprintf(t, "%s\t%.0f\t%.0f%%\t%.0f MB\t%.1f ms\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t\n", s.Case, s.TokensPerS, 100*s.ShareOfPeak, s.PeakRSSMB,
			p.ForwardGemm, p.ForwardAttention, p.ForwardRowwise, p.Head, p.BackwardGemm, p.BackwardAttention, p.BackwardRowwise, p.Optimiser)
	}
	for i, d := range r.decodings {
		if i == 0 {
			fmt.Fprintln(t, "\ngeneration\tprompt tokens/s\ttokens/s of one\tmemory read\tof peak\ttokens/s of 16\t")
		}
		gbs := d.TokensPerS * d.BytesPerToken / 1e9
		c := bench.DecodeCases()[i]
		fmt.Fprintf(t, "%s/%s\t%.0f\t%.1f\t%.1f GB/s\t%.0f%%\t%.0f\t\n", c.Model, c.DType, d.PrefillTokensPerS, d.TokensPerS, gbs, 100*gbs/r.Peak.Bandwidth, d.Together)
	}
}
