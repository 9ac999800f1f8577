package main

import (
	"fmt"
	"io"
	"strings"

	"lorad/proto"
)

type nodeCmd struct {
	Rm nodeRm `cmd:"" help:"Remove a node from the cluster for ever: its certificate is not accepted any more."`
}

type nodeRm struct {
	Node string `arg:"" help:"Name of the node, its id or a unique beginning of that."`
}

// removedView is what lorad node rm -o json prints.
type removedView struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	MovedRuns []string `json:"moved_runs"`
	Heir      string   `json:"heir,omitempty"`
}

func (n nodeRm) Run(a *app) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	names, err := c.names(a.ctx)
	if err != nil {
		return err
	}
	reply, err := c.RemoveNode(a.ctx, &proto.RemoveNodeRequest{Node: n.Node})
	if err != nil {
		return err
	}
	v := removedView{ID: reply.Node.Id, Name: reply.Node.Name, MovedRuns: append([]string{}, reply.MovedRuns...)}
	if len(v.MovedRuns) > 0 {
		v.Heir = names[reply.Heir]
	}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s (%s) is removed; it comes back with a new token and an empty state directory only\n", v.Name, v.ID)
		if len(v.MovedRuns) > 0 {
			fmt.Fprintf(w, "%s now writes the output of %s, to the same path\n", v.Heir, strings.Join(v.MovedRuns, ", "))
		}
	})
}
