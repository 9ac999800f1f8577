package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"lorad/gpu"
	"lorad/proto"
)

type nodesCmd struct{}

// nodeView is a node as -o json shows it.
type nodeView struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Addr        string   `json:"addr"`
	Alive       bool     `json:"alive"`
	Leader      bool     `json:"leader"`
	Role        string   `json:"role"`
	Voter       bool     `json:"voter"`
	Witness     bool     `json:"witness"`
	Self        bool     `json:"self"`
	Engine      string   `json:"engine"`
	Cores       uint32   `json:"cores"`
	MemoryBytes uint64   `json:"memory_bytes"`
	Version     string   `json:"version"`
	Draining    string   `json:"draining,omitempty"` // why it hands its work over and gets none
	Runs        []string `json:"runs"`

	GPUs []gpu.Device `json:"gpus"` // as they are now; none from a node that does not answer in time
}

func (nodesCmd) Run(a *app) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Cluster(a.ctx, &proto.ClusterRequest{Gpus: true})
	if err != nil {
		return err
	}
	views := []nodeView{}
	for _, s := range reply.Nodes {
		n := s.Node
		views = append(views, nodeView{
			ID: n.Id, Name: n.Name, Addr: n.Addr, Alive: s.Alive, Leader: s.Leader, Self: s.Self, Role: role(s),
			Voter: s.Votes, Witness: n.Witness, Draining: n.GetDrain().GetReason(),
			Engine: n.Engine, Cores: n.Cores, MemoryBytes: n.MemoryBytes, Version: n.Version, Runs: append([]string{}, s.Runs...),
			GPUs: gpuViews(s.Gpus),
		})
	}
	return a.print(views, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tADDRESS\tSTATE\tROLE\tENGINE\tMEMORY\tGPUS\tRUNS")
		for _, v := range views {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s, %d cores\t%.1f GiB\t%s\t%s\n", v.Name+mark(v.Self), v.Addr, state(v), ranked(v),
				v.Engine, v.Cores, float64(v.MemoryBytes)/(1<<30), gpuColumn(v.GPUs), strings.Join(v.Runs, ","))
		}
		t.Flush()
		showRecoveries(w, recoveries(reply, ""))
	})
}

func mark(self bool) string {
	if self {
		return " (here)"
	}
	return ""
}

func state(v nodeView) string {
	switch {
	case !v.Alive:
		return "down"
	case v.Draining != "":
		return "draining"
	}
	return "up"
}

// role is what a node is in the cluster. A standby may vote and does not, because enough others do.
func role(s *proto.NodeStatus) string {
	switch {
	case s.Node.Witness:
		return "witness"
	case s.Votes:
		return "voter"
	case s.Node.Voter:
		return "standby"
	}
	return "worker"
}

// ranked is the role as people see it: leading is what matters most.
func ranked(v nodeView) string {
	switch {
	case v.Leader && v.Witness:
		return "leader (witness)"
	case v.Leader:
		return "leader"
	case v.Witness && !v.Voter:
		return "witness (standby)"
	}
	return v.Role
}
