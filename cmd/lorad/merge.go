package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"lorad/engine/cpu"
	"lorad/export"
	"lorad/model"
	"lorad/model/safetensors"
)

type mergeCmd struct {
	Adapter   string `arg:"" type:"existingdir" help:"PEFT adapter folder."`
	Out       string `arg:"" help:"Folder to write the merged model to; must not exist."`
	BaseModel string `help:"Hugging Face folder, or embedded (default: what the adapter was trained on)." placeholder:"DIR"`
	DType     string `name:"dtype" enum:"auto,bf16,f16,f32" default:"auto" help:"Type of the weights: bf16, f16 or f32 (default: the base's own 16-bit type)."`
}

type adapterCmd struct {
	Verify verifyCmd `cmd:"" help:"Check that an adapter fits its base and does something."`
}

type verifyCmd struct {
	Adapter   string `arg:"" type:"existingdir" help:"PEFT adapter folder."`
	BaseModel string `help:"Hugging Face folder, or embedded (default: what the adapter was trained on)." placeholder:"DIR"`
}

// opened is an adapter with its base and what is known of it.
type opened struct {
	*export.Adapter
	base       *model.Folder
	from       fs.FS
	provenance export.Provenance
}

func openAdapter(dir, base string) (opened, error) {
	name, err := baseOf(dir, base)
	if err != nil {
		return opened{}, err
	}
	o := opened{from: baseFolder(name)}
	if o.provenance, err = export.ReadProvenance(os.DirFS(dir)); err != nil {
		return o, err
	}
	if o.base, err = model.Open(o.from); err != nil {
		return o, fmt.Errorf("base model: %w", err)
	}
	if !o.base.HasWeights() {
		return o, fmt.Errorf("base model: the folder has no model.safetensors")
	}
	if o.base.Config().FourBit {
		return o, fmt.Errorf("base model: %s is in 4 bits, which an adapter is not folded into; give the same model in bf16, f16 or f32 with --base-model", name)
	}
	o.Adapter, err = export.Open(o.base, os.DirFS(dir), cpu.New(0))
	return o, err
}

// sayBase notes that the base is not the one that the adapter was trained on. It may be meant: the same model, not in 4 bits.
func (o opened) sayBase() error {
	base, err := o.BaseIs(o.provenance)
	if base == "another" {
		fmt.Fprintln(os.Stderr, "note: the base model has other weights than the adapter was trained on; unless it is the same model in another type, give the right one with --base-model")
	}
	return err
}

// dtypes are the words of --dtype.
var dtypes = map[string]safetensors.DType{"bf16": safetensors.BF16, "f16": safetensors.F16, "f32": safetensors.F32}

func (m mergeCmd) Run(a *app) error {
	if _, err := os.Stat(m.Out); !errors.Is(err, fs.ErrNotExist) {
		return usage(fmt.Errorf("%s is there already: give a new folder", m.Out))
	}
	defer a.endAtOnce(m.Out)()
	o, err := openAdapter(m.Adapter, m.BaseModel)
	if err != nil {
		return usage(err)
	}
	defer o.base.Close()
	quantise, err := o.provenance.Quantiser()
	if err != nil {
		return usage(err)
	}
	if err := o.sayBase(); err != nil {
		return usage(err)
	}
	report, err := o.Merge(m.Out, o.from, dtypes[m.DType], quantise)
	if err != nil {
		os.RemoveAll(m.Out) // it was not there before
		return err
	}
	return a.print(report, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d layers changed, weights in %s\n", filepath.Join(m.Out, "model.safetensors"), report.Modules, report.DType)
		if report.Untied {
			fmt.Fprintln(w, "lm_head was tied to the embedding and has its own weights now: the adapter changes one of them only")
		}
		fmt.Fprintf(w, "rounding to %s took %.2g of the adapter's change\n", report.DType, report.Rounding)
		if report.Quantised > 0 {
			fmt.Fprintf(w, "the adapter was trained on the base in 4 bits, which is %.2g of its change away from these weights: evaluate the merged model\n", report.Quantised)
		}
	})
}

func (v verifyCmd) Run(a *app) error {
	defer a.endAtOnce()()
	o, err := openAdapter(v.Adapter, v.BaseModel)
	if err != nil {
		return usage(err)
	}
	defer o.base.Close()
	c, err := o.Verify(o.provenance)
	if err != nil {
		return err
	}
	if err := a.print(c, func(w io.Writer) { printCheck(w, c) }); err != nil {
		return err
	}
	if len(c.Problems) > 0 {
		return &exitError{exitFailed, errors.New(c.Problems[0])}
	}
	return nil
}

func printCheck(w io.Writer, c export.Check) {
	words := map[string]string{"same": "the weights that it was trained on", "another": "OTHER weights than it was trained on", "unknown": "not recorded in the adapter: shapes fit"}
	fmt.Fprintf(w, "base      %s\n", words[c.Base])
	fmt.Fprintf(w, "layers    %d of %d that its configuration names\n", c.Modules-len(c.Broken), c.Targets)
	fmt.Fprintf(w, "effect    %.2g of the weights' norm on average (%.2g to %.2g)\n", c.Effect.Mean, c.Effect.Least, c.Effect.Largest)
	for _, p := range c.Problems {
		fmt.Fprintf(w, "problem   %s\n", p)
	}
	if len(c.Problems) == 0 {
		fmt.Fprintln(w, "good")
	}
}
