package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"lorad/proto"
)

type drainCmd struct {
	Node string        `arg:"" help:"Name or id of the node, or a unique beginning of the id."`
	Undo bool          `help:"Let the node work again."`
	Wait time.Duration `default:"1m" help:"How long to wait until the node works on nothing; 0 does not wait."`
}

// drainView is what lorad drain prints with -o json.
type drainView struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Draining bool     `json:"draining"`
	Runs     []string `json:"runs"` // that it still works on
}

const drainPoll = 100 * time.Millisecond

func (d drainCmd) Run(a *app) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Drain(a.ctx, &proto.DrainRequest{Node: d.Node, Undo: d.Undo})
	if err != nil {
		return err
	}
	n := reply.Node
	v := drainView{ID: n.Id, Name: n.Name, Draining: n.Drain != nil, Runs: []string{}}
	if !d.Undo {
		if v.Runs, err = c.drained(a.ctx, n.Id, d.Wait); err != nil {
			return err
		}
	}
	return a.print(v, func(w io.Writer) { v.text(w, d.Wait) })
}

func (v drainView) text(w io.Writer, waited time.Duration) {
	switch {
	case !v.Draining:
		fmt.Fprintf(w, "%s works again\n", v.Name)
	case len(v.Runs) == 0:
		fmt.Fprintf(w, "%s is drained: it works on nothing, and serves what it has to the others\nlorad drain --undo %s lets it work again\n", v.Name, v.Name)
	case waited == 0:
		fmt.Fprintf(w, "%s hands over %s\n", v.Name, strings.Join(v.Runs, ", "))
	default:
		fmt.Fprintf(w, "%s still works on %s after %s: its step is longer than that, or no other node can go on with it\n", v.Name, strings.Join(v.Runs, ", "), waited)
	}
}

// drained waits until the node works on nothing and returns the runs that it still works on then.
func (c *client) drained(ctx context.Context, node string, wait time.Duration) ([]string, error) {
	for deadline := time.Now().Add(wait); ; {
		reply, err := c.Cluster(ctx, &proto.ClusterRequest{})
		if err != nil {
			return nil, err
		}
		runs := []string{}
		for _, s := range reply.Nodes {
			if s.Node.Id == node {
				runs = append(runs, s.Runs...)
			}
		}
		if len(runs) == 0 || time.Now().After(deadline) {
			return runs, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(drainPoll):
		}
	}
}

// drainFlags say when and how a node hands its work over by itself.
type drainFlags struct {
	DrainTimeout time.Duration `default:"10s" help:"How long a node that is told to end may take to hand its work over at the end of a step; 0 ends at once."`
	PreemptCmd   string        `placeholder:"COMMAND" help:"Shell command that is run every 5 seconds and exits with 0 when this machine is about to be taken away (a spot notice); the node then hands its work over."`
}

// leave hands this node's work over, if it has any, for at most so long.
func (d *daemon) leave(atMost time.Duration) {
	if d.node == nil || atMost <= 0 || !d.node.Busy() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), atMost)
	defer cancel()
	err := d.coordinator.Leave(ctx, "its process was told to end")
	if err == nil {
		err = d.node.HandOver(ctx)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "lorad: work was not handed over within %s: %v; the others do the step again without this node\n", atMost, err)
	}
}

const (
	preemptEvery = 5 * time.Second
	preemptLimit = 4 * time.Second // for one run of the command
)

// watchPreemption drains the node once command says that the machine goes away. The process goes on: what it has is of
// use to the others as long as it is there.
func (d *daemon) watchPreemption(ctx context.Context, command string) {
	for ctx.Err() == nil {
		if preempted(ctx, command) {
			fmt.Fprintln(os.Stderr, "lorad: the preemption command says that this machine goes away; handing work over")
			if err := d.coordinator.Leave(ctx, "its machine is about to be taken away"); err == nil {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(preemptEvery):
		}
	}
}

// preempted runs the command. Its output is nobody's business: it may hold tokens of the cloud's metadata service.
func preempted(ctx context.Context, command string) bool {
	ctx, cancel := context.WithTimeout(ctx, preemptLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.WaitDelay = time.Second
	return cmd.Run() == nil
}
