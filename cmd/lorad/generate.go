package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"lorad/embedded"
	"lorad/engine"
	"lorad/model/peft"
	"lorad/node"
)

type generateCmd struct {
	Prompt      string  `arg:"" help:"Text to continue; - reads it from standard input."`
	Adapter     string  `type:"existingdir" help:"PEFT adapter folder." placeholder:"DIR"`
	BaseModel   string  `help:"Hugging Face folder, or embedded (default: what the adapter was trained on, else embedded)." placeholder:"DIR"`
	MaxNew      int     `default:"64" help:"Tokens to add at most."`
	Temperature float64 `default:"0" help:"0 is greedy."`
	TopP        float64 `default:"1" help:"Nucleus sampling."`
	Seed        uint64  `default:"0" help:"Of the sampling."`
	useFlags    `embed:""`
}

func (g generateCmd) Run(a *app) error {
	defer a.endAtOnce()()
	prompt := g.Prompt
	if prompt == "-" {
		in, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
		if err != nil {
			return err
		}
		prompt = string(in)
	}
	base, err := baseOf(g.Adapter, g.BaseModel)
	if err != nil {
		return usage(err)
	}
	m, err := g.open(base, g.Adapter)
	if err != nil {
		return err
	}
	defer m.Close()
	text, err := m.Complete(prompt, engine.Sampling{MaxNew: g.MaxNew, Temperature: g.Temperature, TopP: g.TopP, Seed: g.Seed})
	if err != nil {
		return err
	}
	return a.print(map[string]string{"prompt": prompt, "completion": text}, func(w io.Writer) { fmt.Fprintln(w, text) })
}

// baseOf is the base model: as named, or the one that the adapter's adapter_config.json names.
func baseOf(adapter, named string) (string, error) {
	switch {
	case named != "":
		return named, nil
	case adapter == "":
		return node.EmbeddedBase, nil
	}
	cfg, _, err := peft.Read(os.DirFS(adapter))
	if err != nil {
		return "", fmt.Errorf("adapter: %w", err)
	}
	if _, err := os.Stat(cfg.BaseModel); cfg.BaseModel != node.EmbeddedBase && err != nil {
		return "", fmt.Errorf("adapter: its base model %q is not on this machine; give its folder with --base-model", cfg.BaseModel)
	}
	return cfg.BaseModel, nil
}

func baseFolder(name string) fs.FS {
	if name == node.EmbeddedBase {
		return embedded.Base()
	}
	return os.DirFS(name)
}

func adapterFolder(name string) fs.FS {
	if name == "" {
		return nil
	}
	return os.DirFS(name)
}
