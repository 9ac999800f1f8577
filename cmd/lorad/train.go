package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lorad/eval"
	"lorad/proto"
)

type trainCmd struct {
	Job     string `arg:"" help:"Job file (YAML); lorad example prints one."`
	Detach  bool   `short:"d" help:"Submit and return; needs a running node."`
	Threads int    `help:"Threads of the engine when this machine trains alone (default: all cores)." placeholder:"N"`
}

// stopGrace is how long Ctrl-C waits for the checkpoint.
const stopGrace = 2 * time.Minute

func (t trainCmd) Run(a *app) error {
	j, err := readJob(t.Job)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(t.Job)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(t.Job)
	if err != nil {
		return err
	}
	req := &proto.SubmitRequest{JobYaml: string(text), Dir: filepath.Dir(path)}
	c, err := a.dial()
	if err == nil {
		defer c.Close()
		return t.submit(a, c, req, fmt.Sprintf("lorad train %s", t.Job))
	}
	if !notRunning(err) {
		return err
	}
	if t.Detach {
		return fmt.Errorf("--detach needs a running node: %w", err)
	}
	return t.alone(a, j.OutputDir, req)
}

// alone runs the job on a cluster of one that lives as long as the command. Its state is kept under the state
// directory by the path of the output, so that the same command resumes; not in the output, which people publish:
// there are keys in it.
func (t trainCmd) alone(a *app, output string, req *proto.SubmitRequest) error {
	of := sha256.Sum256([]byte(output))
	dir := filepath.Join(a.dir, "alone", hex.EncodeToString(of[:6]))
	ctx, stop := context.WithCancel(context.WithoutCancel(a.ctx)) // Ctrl-C is for the run first, not for the node
	defer stop()
	d, err := startDaemon(ctx, daemonConfig{Dir: dir, Name: "local", Bind: "127.0.0.1:0", Threads: t.Threads, Bootstrap: true, Alone: true, Log: a.log})
	if err != nil {
		return err
	}
	defer d.close()
	c, err := dial(ctx, dir)
	if err != nil {
		return err
	}
	defer c.Close()
	until, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	go func() {
		select {
		case err := <-d.coordinator.Failed():
			d.abandon()
			cancel(err)
		case <-until.Done():
		}
	}()
	b := *a
	b.ctx = until
	return t.submit(&b, c, req, fmt.Sprintf("lorad train %s", t.Job))
}

func (t trainCmd) submit(a *app, c *client, req *proto.SubmitRequest, again string) error {
	began := time.Now()
	reply, err := c.Submit(a.ctx, req)
	if err != nil {
		return err
	}
	r := reply.Run
	if r.Phase == proto.Phase_DONE {
		fmt.Fprintf(os.Stderr, "run %s is done already; change the job, its data or output_dir to train anew\n", r.Spec.Run)
		if err := t.stillThere(a, c, r); err != nil {
			return err
		}
		return t.result(a, c, r)
	}
	switch {
	case reply.Resumed:
		fmt.Fprintf(os.Stderr, "run %s resumes; step %d of %d is committed\n", r.Spec.Run, r.Step, r.Spec.Steps)
	case reply.Existed:
		fmt.Fprintf(os.Stderr, "run %s is on already; step %d of %d\n", r.Spec.Run, r.Step, r.Spec.Steps)
	default:
		fmt.Fprintf(os.Stderr, "run %s: %d steps, submitted in %s\n", r.Spec.Run, r.Spec.Steps, time.Since(began).Round(time.Millisecond))
	}
	for _, w := range r.Spec.Warnings {
		fmt.Fprintf(os.Stderr, "note: %s\n", w)
	}
	if t.Detach {
		fmt.Fprintf(os.Stderr, "follow it with: lorad runs logs -f %s\n", r.Spec.Run)
		return a.print(view(r, nil), func(w io.Writer) { fmt.Fprintln(w, r.Spec.Run) })
	}
	last, err := t.watch(a, c, r, again)
	if err != nil {
		return err
	}
	if err := outcome(last); err != nil {
		return err
	}
	return t.result(a, c, last)
}

// stillThere looks whether output_dir holds what the run made, if it is on this machine: people remove folders, and train something else into
// them.
func (t trainCmd) stillThere(a *app, c *client, r *proto.Run) error {
	reply, err := c.Cluster(a.ctx, &proto.ClusterRequest{})
	if err != nil {
		return err
	}
	here := slices.ContainsFunc(reply.Nodes, func(n *proto.NodeStatus) bool { return n.Self && n.Node.Id == r.Spec.HomeNode })
	if a.server != "" || r.Home != "" || !here || len(r.AdapterSha256) == 0 {
		return nil
	}
	for _, name := range []string{"adapter_model.safetensors", "model.safetensors"} {
		if fileSHA256(filepath.Join(r.Spec.OutputDir, name)) == hex.EncodeToString(r.AdapterSha256) {
			return nil
		}
	}
	return fmt.Errorf("run %s: its result is no longer in %s: removed, or another run has written there; give another output_dir to train it again", r.Spec.Run, r.Spec.OutputDir)
}

// watch shows the run; Ctrl-C checkpoints and stops it.
func (t trainCmd) watch(a *app, c *client, r *proto.Run, again string) (*proto.Run, error) {
	names, err := c.names(a.ctx)
	if err != nil {
		return nil, err
	}
	p := newProgress(os.Stderr, names)
	defer p.end()
	last, err := c.follow(a.ctx, r.Spec.Run, r.Step, p)
	if a.ctx.Err() == nil {
		return last, err
	}
	if why := context.Cause(a.ctx); !errors.Is(why, context.Canceled) {
		return nil, why // the node has failed: nobody is there to checkpoint
	}
	p.note("stopping: waiting for the checkpoint")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), stopGrace)
	defer cancel()
	if _, err := c.Stop(ctx, &proto.StopRequest{Run: r.Spec.Run, Reason: "interrupted"}); err != nil {
		return nil, err
	}
	if last, err = c.follow(ctx, r.Spec.Run, ^uint64(0), quiet{}); err != nil {
		return nil, err
	}
	if last.Phase != proto.Phase_STOPPED {
		return last, nil
	}
	return nil, &exitError{exitInterrupted, fmt.Errorf("stopped at step %d of %d, checkpointed; resume with: %s", last.Step, last.Spec.Steps, again)}
}

// result says what came out and what to do with it.
func (t trainCmd) result(a *app, c *client, r *proto.Run) error {
	full, err := c.GetRun(context.WithoutCancel(a.ctx), &proto.GetRunRequest{Run: r.Spec.Run})
	if err != nil {
		return err
	}
	v := view(full, nil)
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %d steps, loss %.4f\n", v.Run, v.Phase, v.Step, v.Loss)
		if best := bestOf(full); best.BestStep > 0 && best.BestStep < v.Step {
			fmt.Fprintf(w, "best:    eval loss %.4f at step %d\n", best.BestLoss, best.BestStep)
		}
		fmt.Fprintf(w, "output:  %s\n", v.OutputDir)
		fmt.Fprintf(w, "sha256:  %s\n", v.AdapterSHA256)
		if _, err := fs.Stat(os.DirFS(v.OutputDir), "adapter_config.json"); err == nil {
			fmt.Fprintf(w, "try it:  lorad generate --adapter %s %s\n", v.OutputDir, `"your prompt"`)
		}
	})
}

// bestOf follows the losses of a whole run.
func bestOf(r *proto.Run) (w eval.Watch) {
	for _, s := range r.Ledger {
		w.Take(s.Step, s.Loss, s.EvalLoss)
	}
	return w
}

// phase is how a phase is called in messages.
func phase(p proto.Phase) string { return strings.ToLower(p.String()) }
