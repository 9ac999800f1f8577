package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"lorad/engine/cuda"
	"lorad/engine/cuda/device"
	"lorad/internal/bench"
	"lorad/model"
)

// gpuBench is what lorad bench --gpu all -o json prints.
type gpuBench struct {
	Device  device.Info   `json:"device"`
	Ceiling bench.Ceiling `json:"ceiling"`
	Steps   []gpuStep     `json:"steps"`

	Generation []gpuGeneration `json:"generation,omitempty"`

	Tuned []device.Tuned `json:"tuned,omitempty"` // what --tune found
}

type gpuGeneration struct {
	DType string `json:"dtype"` // of the base
	bench.Decoding
}

type gpuStep struct {
	bench.GPUCase
	Samples    int        `json:"samples"`
	Millis     [3]float64 `json:"ms"`          // of whole steps: median, 10th and 90th percentile
	GradientMS float64    `json:"gradient_ms"` // median: of which the GPU's part
	TokensPerS float64    `json:"tokens_per_s"`
	OfCeiling  float64    `json:"of_ceiling"` // useful operations, of what products reach
	Memory     cuda.Plan  `json:"memory"`
}

func (b benchCmd) onGPU(a *app) error {
	cases := bench.GPUCases()
	if b.GPU != "all" {
		c, err := bench.ParseGPUCase(b.GPU)
		if err != nil {
			return usage(err)
		}
		cases = []bench.GPUCase{c}
	}
	if b.Steps {
		return b.gpuWorker(a.stdout, os.Stdin, cases[0])
	}
	var tuned []device.Tuned
	if b.Tune {
		var err error
		if tuned, err = b.tuneGPU(cases); err != nil {
			return err
		}
	}
	res, err := b.measureGPU(cases)
	if err != nil {
		return err
	}
	res.Tuned = tuned
	if b.GPU == "all" && !b.Quick {
		if res.Generation, err = b.generateOnGPU(); err != nil {
			return err
		}
	}
	return a.print(res, func(w io.Writer) { res.table(w) })
}

// gpuRunner makes steps of a case, in the shape that was asked for.
func (b benchCmd) gpuRunner(c bench.GPUCase, dev device.Device) (*bench.Runner, *cuda.Trainer, error) {
	cfg := bench.GPUConfig(b.Tiny)
	if b.Base != "" {
		base, err := model.Open(baseFolder(b.Base))
		if err != nil {
			return nil, nil, err
		}
		defer base.Close()
		cfg = base.Config()
		cfg.FourBit = false // the case says
	}
	return bench.NewGPURunner(c, cfg, dev)
}

// gpuWorker makes a step for each line, so that whoever drives it can take turns with another program's.
func (b benchCmd) gpuWorker(out io.Writer, in io.Reader, c bench.GPUCase) error {
	dev, err := openGPU()
	if err != nil {
		return err
	}
	r, t, err := b.gpuRunner(c, dev)
	if err != nil {
		dev.Close()
		return err
	}
	defer t.Close()
	plan := t.Plan()
	return each(out, in, func() (any, error) {
		s, err := r.Step()
		return struct {
			bench.Sample
			Memory cuda.Plan `json:"memory"`
		}{s, plan}, err
	})
}

// tuneGPU makes a step of each case, and has the device look at the products in it.
func (b benchCmd) tuneGPU(cases []bench.GPUCase) (all []device.Tuned, err error) {
	for _, c := range cases {
		fmt.Fprintf(os.Stderr, "tuning the products of %s\n", c)
		found, err := b.tuneCase(c)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func (b benchCmd) tuneCase(c bench.GPUCase) ([]device.Tuned, error) {
	dev, err := openGPU()
	if err != nil {
		return nil, err
	}
	r, t, err := b.gpuRunner(c, dev)
	if err != nil {
		dev.Close()
		return nil, err
	}
	defer t.Close()
	if _, err := r.Step(); err != nil {
		return nil, err
	}
	tuner, ok := dev.(device.Tuner)
	if !ok {
		return nil, fmt.Errorf("bench --tune: %s: its products have one way only", dev.Info().BLAS)
	}
	found, tables, err := tuner.Tune()
	if err != nil {
		return nil, err
	}
	return found, writeTuned(tables)
}

func (b benchCmd) measureGPU(cases []bench.GPUCase) (res gpuBench, err error) {
	dev, err := openGPU()
	if err != nil {
		return res, err
	}
	size := 8192
	if b.Tiny {
		size = 64
	}
	res.Device = dev.Info()
	res.Ceiling, err = bench.MeasureGPU(dev, size, b.pace(2*time.Second))
	dev.Close()
	for _, c := range cases {
		if err != nil {
			return res, err
		}
		fmt.Fprintf(os.Stderr, "measuring steps of %s\n", c)
		var s gpuStep
		s, err = b.gpuCase(c, res.Ceiling)
		res.Steps = append(res.Steps, s)
	}
	return res, err
}

// gpuCase opens the device for itself, so that one case's memory is not another's.
func (b benchCmd) gpuCase(c bench.GPUCase, top bench.Ceiling) (gpuStep, error) {
	dev, err := openGPU()
	if err != nil {
		return gpuStep{}, err
	}
	r, t, err := b.gpuRunner(c, dev)
	if err != nil {
		dev.Close()
		return gpuStep{}, err
	}
	defer t.Close()
	const warm, most = 5, 30
	var all []bench.Sample
	for end := time.Now().Add(b.pace(10 * time.Second)); len(all) < warm+2 || len(all) < warm+most && time.Now().Before(end); {
		s, err := r.Step()
		if err != nil {
			return gpuStep{}, err
		}
		all = append(all, s)
	}
	return gpuSummary(c, all[warm:], t.Plan(), top), nil
}

// generateOnGPU measures the continuation of prompts.
func (b benchCmd) generateOnGPU() (all []gpuGeneration, err error) {
	for _, dtype := range []string{"bf16", "nf4"} {
		fmt.Fprintf(os.Stderr, "measuring generation in %s\n", dtype)
		g := gpuGeneration{DType: dtype}
		if g.Decoding, err = b.decodeOnGPU(dtype); err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return all, nil
}

func (b benchCmd) decodeOnGPU(dtype string) (bench.Decoding, error) {
	dev, err := openGPU()
	if err != nil {
		return bench.Decoding{}, err
	}
	d, t, err := bench.NewGPUDecoder(dtype, bench.GPUConfig(b.Tiny), dev, b.Tiny)
	if err != nil {
		dev.Close()
		return bench.Decoding{}, err
	}
	defer t.Close()
	if _, err := d.Decode(); err != nil { // the first takes memory and records
		return bench.Decoding{}, err
	}
	return d.Decode()
}

func gpuSummary(c bench.GPUCase, all []bench.Sample, p cuda.Plan, top bench.Ceiling) gpuStep {
	of := func(f func(bench.Sample) float64, share float64) float64 {
		var x []float64
		for _, s := range all {
			x = append(x, f(s))
		}
		slices.Sort(x)
		return x[int(share*float64(len(x)-1)+0.5)]
	}
	whole := func(s bench.Sample) float64 { return s.Millis }
	s := gpuStep{GPUCase: c, Samples: len(all), Millis: [3]float64{of(whole, 0.5), of(whole, 0.1), of(whole, 0.9)}, Memory: p}
	s.GradientMS = of(func(s bench.Sample) float64 { return s.Gradient }, 0.5)
	s.TokensPerS = 1000 * float64(all[0].Tokens) / s.Millis[0]
	s.OfCeiling = all[0].Useful / s.Millis[0] / top.TFLOPS // GFLOP/ms is TFLOP/s
	return s
}

func (r gpuBench) table(w io.Writer) {
	fmt.Fprintf(w, "%s, driver %s, %s: products %.0f TFLOP/s, copies %.0f GB/s\n\n", r.Device.Name, r.Device.Driver, r.Device.BLAS, r.Ceiling.TFLOPS, r.Ceiling.Bandwidth)
	r.tunedTable(w)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	defer r.generationTable(w)
	defer t.Flush()
	fmt.Fprintln(t, "step\tms\tp10\tp90\tgradient ms\ttokens/s\tof products\tmemory planned\t")
	for _, s := range r.Steps {
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t%.0f%%\t%.2f GB\t\n", s.GPUCase, s.Millis[0], s.Millis[1], s.Millis[2], s.GradientMS, s.TokensPerS, 100*s.OfCeiling, float64(s.Memory.Peak)/1e9)
	}
}

func (r gpuBench) generationTable(w io.Writer) {
	for _, g := range r.Generation {
		fmt.Fprintf(w, "\ngeneration in %s: %.0f tokens/s alone, %.0f of 16 sequences together; prompts %.0f tokens/s\n", g.DType, g.TokensPerS, g.Together, g.PrefillTokensPerS)
	}
}

// tunedTable is the products that became faster.
func (r gpuBench) tunedTable(w io.Writer) {
	if len(r.Tuned) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "product\tus\ttuned\tways\tfaster with other bits\t")
	faster := 0
	for _, p := range r.Tuned {
		if p.Micros < p.First {
			faster++
			fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%d\t%d\t\n", p.Product, p.First, p.Micros, p.Choices, p.OtherBits)
		}
	}
	t.Flush()
	fmt.Fprintf(w, "%d of %d products are faster now, with the same bits\n\n", faster, len(r.Tuned))
}
