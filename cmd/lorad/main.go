// Command lorad turns a few machines into one that fine-tunes small language models with LoRA.
//
// One file per verb; wiring only. Data goes to stdout and everything else to stderr; with -o json stdout is JSON and
// nothing but JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	Dir     string `help:"State directory of this machine's node (default: ${state})." env:"LORAD_DIR" placeholder:"DIR"`
	Server  string `help:"host:port of any node: ask that one instead of this machine's; see lorad login." env:"LORAD_SERVER" placeholder:"ADDR"`
	Output  string `short:"o" enum:"text,json" default:"text" help:"text or json."`
	Verbose bool   `short:"v" help:"Log more."`

	Demo     demoCmd     `cmd:"" help:"The main job, end to end, with nothing but this program: a cluster of three nodes on this machine fine-tunes the embedded model."`
	Up       upCmd       `cmd:"" help:"Start the first node of a new cluster, or this machine's node again."`
	Join     joinCmd     `cmd:"" help:"Join this machine to a cluster."`
	Nodes    nodesCmd    `cmd:"" help:"List the nodes of the cluster."`
	Node     nodeCmd     `cmd:"" help:"Remove a node from the cluster."`
	Recover  recoverCmd  `cmd:"" help:"Go on alone when the majority of voters is lost for good."`
	Drain    drainCmd    `cmd:"" help:"Have a node hand its work over at the end of the step, or let it work again."`
	Login    loginCmd    `cmd:"" help:"Keep a token for calling a cluster from elsewhere, with --server."`
	Logout   logoutCmd   `cmd:"" help:"Forget it."`
	Token    tokenCmd    `cmd:"" help:"Make, list and revoke tokens, for nodes that are to join and for people."`
	Prepare  prepareCmd  `cmd:"" help:"Show what the model will see of a job's data, and what is wrong with it."`
	Train    trainCmd    `cmd:"" help:"Train what a job file says, on the cluster or, without one, on this machine alone."`
	Runs     runsCmd     `cmd:"" help:"List, show, follow and stop runs."`
	Audit    auditCmd    `cmd:"" help:"Prove from a run's ledger that every example was trained on exactly once per epoch."`
	Chaos    chaosCmd    `cmd:"" help:"Put a cluster on this machine through faults while it trains, and see that the result is the same."`
	Plan     planCmd     `cmd:"" help:"Say what memory a job will take, part by part, and about how long a step, before anything is loaded."`
	Bench    benchCmd    `cmd:"" help:"Measure this machine, and training steps on it."`
	Eval     evalCmd     `cmd:"" help:"Measure a model on held-out records, with and without an adapter."`
	Merge    mergeCmd    `cmd:"" help:"Fold an adapter into its base model."`
	Adapter  adapterCmd  `cmd:"" help:"Check adapters."`
	Generate generateCmd `cmd:"" help:"Let a model continue a prompt, with or without an adapter."`
	Example  exampleCmd  `cmd:"" help:"Print a job file with every key explained, to start from."`
	Doctor   doctorCmd   `cmd:"" help:"Look at this machine, and say of what is wrong with it what to do."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// app is what every verb gets.
type app struct {
	ctx    context.Context
	dir    string
	server string // "": this machine's node
	json   bool
	stdout io.Writer
	log    *slog.Logger
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c cli
	code := -1
	parser, err := kong.New(&c,
		kong.Name("lorad"),
		kong.Description("Fine-tunes small language models with LoRA on the machines you have."),
		kong.Vars{"state": stateDir()},
		kong.UsageOnError(),
		kong.Exit(func(n int) { code = n }),
	)
	if err != nil {
		panic(err) // the structs above are wrong
	}
	parsed, err := parser.Parse(args)
	if code == 0 { // --help
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lorad:", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the first signal asks to stop in good order, a second one kills
	a := &app{ctx: ctx, dir: c.Dir, server: c.Server, json: c.Output == "json", stdout: os.Stdout, log: logger(c.Verbose)}
	if a.dir == "" {
		a.dir = stateDir()
	}
	if a.dir, err = filepath.Abs(a.dir); err == nil {
		err = parsed.Run(a)
	}
	return a.exit(err)
}

func logger(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// stateDir follows the XDG base directory specification: what a node keeps is state, not configuration.
func stateDir() string {
	if base := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "lorad")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ".lorad"
	}
	return filepath.Join(home, ".local", "state", "lorad")
}

// endAtOnce has a signal end the program where it is, until the function it returns is called: for verbs that only compute. What they
// have begun to write is removed.
func (a *app) endAtOnce(begun ...string) (done func() bool) {
	return context.AfterFunc(a.ctx, func() {
		for _, path := range begun {
			os.RemoveAll(path)
		}
		fmt.Fprintln(os.Stderr, "lorad: interrupted")
		os.Exit(exitInterrupted)
	})
}

// print writes one value to stdout: as JSON, or as text says.
func (a *app) print(v any, text func(w io.Writer)) error {
	if !a.json {
		text(a.stdout)
		return nil
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
