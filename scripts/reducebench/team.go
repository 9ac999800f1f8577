package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"lorad/internal/netlab"
)

// task is what a member is told first, as a line of JSON.
type task struct {
	Rank    int      `json:"rank"`
	Addrs   []string `json:"addrs"`
	Dir     string   `json:"dir"` // with its identity and its tensor
	Params  int      `json:"params"`
	Variant string   `json:"variant"`
}

// result is a member's line after a round.
type result struct {
	Seconds float64 `json:"seconds"`
	Way     string  `json:"way"`
	CPU     float64 `json:"cpu"`   // seconds of the process, system included
	First   float64 `json:"first"` // element of the sum, to be compared
}

// team is the processes of one variant.
type team struct {
	procs  []*exec.Cmd
	in     []io.WriteCloser
	out    []*json.Decoder
	rounds map[string]*rounds // by the way that the members took
	way    string
	first  float64
}

// rounds are figures of measured rounds.
type rounds struct {
	seconds []float64 // the slowest member's
	wire    []float64 // bytes on the busiest cable
	cpu     []float64 // of the busiest member
}

// start starts a variant's members, one per node, and waits until each is ready.
func (o *options) start(lab *netlab.Lab, variant string, n, params int) (*team, error) {
	t := &team{rounds: map[string]*rounds{}}
	job := task{Params: params, Variant: variant}
	for i := range n {
		job.Addrs = append(job.Addrs, fmt.Sprintf("%s:%d", lab.Addr(i), 7000+len(variant)))
	}
	for i := range n {
		job.Rank, job.Dir = i, filepath.Join(o.dir, nodeID(i))
		var cmd *exec.Cmd
		if variant == "gloo" {
			cmd = lab.Command(i, o.python, "scripts/oracle/gloo_allreduce.py")
		} else {
			cmd = lab.Command(i, os.Args[0], "member")
		}
		cmd.Stderr = os.Stderr
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.stop()
			return nil, err
		}
		t.procs, t.in, t.out = append(t.procs, cmd), append(t.in, in), append(t.out, json.NewDecoder(bufio.NewReader(out)))
		if err := json.NewEncoder(in).Encode(job); err != nil {
			return nil, err
		}
	}
	var ready result
	for i := range t.out {
		if err := t.out[i].Decode(&ready); err != nil {
			t.stop()
			return nil, fmt.Errorf("%s: member %d did not start: %w", variant, i, err)
		}
	}
	return t, nil
}

// round has all members sum once.
func (t *team) round(lab *netlab.Lab, counts bool) error {
	before := make([]int64, len(t.procs))
	for i := range before {
		before[i], _ = lab.Sent(i)
	}
	for _, in := range t.in {
		if _, err := io.WriteString(in, "go\n"); err != nil {
			return err
		}
	}
	var seconds, cpu, wire float64
	for i := range t.out {
		var r result
		if err := t.out[i].Decode(&r); err != nil {
			return fmt.Errorf("member %d: %w", i, err)
		}
		if i > 0 && r.First != t.first {
			return fmt.Errorf("member %d has the sum %g, member 0 %g", i, r.First, t.first)
		}
		seconds, cpu = max(seconds, r.Seconds), max(cpu, r.CPU)
		t.way, t.first = r.Way, r.First
	}
	for i := range before {
		after, _ := lab.Sent(i)
		wire = max(wire, float64(after-before[i]))
	}
	if counts {
		r := t.rounds[t.way]
		if r == nil {
			r = &rounds{}
			t.rounds[t.way] = r
		}
		r.seconds, r.wire, r.cpu = append(r.seconds, seconds), append(r.wire, wire), append(r.cpu, cpu)
	}
	return nil
}

func (t *team) stop() {
	for _, in := range t.in {
		_ = in.Close()
	}
	for _, p := range t.procs {
		_ = p.Wait()
	}
}
