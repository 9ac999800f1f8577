package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

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
	Voter       bool     `json:"voter"`
	Self        bool     `json:"self"`
	Engine      string   `json:"engine"`
	Cores       uint32   `json:"cores"`
	MemoryBytes uint64   `json:"memory_bytes"`
	Version     string   `json:"version"`
	Runs        []string `json:"runs"`
}

func (nodesCmd) Run(a *app) error {
	c, err := dial(a.ctx, a.dir)
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Cluster(a.ctx, &proto.ClusterRequest{})
	if err != nil {
		return err
	}
	views := []nodeView{}
	for _, s := range reply.Nodes {
		n := s.Node
		views = append(views, nodeView{
			ID: n.Id, Name: n.Name, Addr: n.Addr, Alive: s.Alive, Leader: s.Leader, Voter: n.Voter, Self: s.Self,
			Engine: n.Engine, Cores: n.Cores, MemoryBytes: n.MemoryBytes, Version: n.Version, Runs: append([]string{}, s.Runs...),
		})
	}
	return a.print(views, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tADDRESS\tSTATE\tROLE\tENGINE\tMEMORY\tRUNS")
		for _, v := range views {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s, %d cores\t%.1f GiB\t%s\n", v.Name+mark(v.Self), v.Addr, state(v), role(v),
				v.Engine, v.Cores, float64(v.MemoryBytes)/(1<<30), strings.Join(v.Runs, ","))
		}
		t.Flush()
	})
}

func mark(self bool) string {
	if self {
		return " (here)"
	}
	return ""
}

func state(v nodeView) string {
	if v.Alive {
		return "up"
	}
	return "down"
}

func role(v nodeView) string {
	switch {
	case v.Leader:
		return "leader"
	case v.Voter:
		return "voter"
	}
	return "worker"
}
