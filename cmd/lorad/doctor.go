package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"lorad/doctor"
	"lorad/node"
	"lorad/proto"
)

type doctorCmd struct {
	Bind string `default:":7840" help:"Address and port that a node would listen on."`
}

// asking is how long a node of this machine may take to say that it runs.
const asking = 2 * time.Second

// errUnwell is what lorad doctor ends with when something has to be mended; the report says what.
var errUnwell = errors.New("this machine has a problem that is marked above")

func (d doctorCmd) Run(a *app) error {
	found := doctor.Examine(doctor.Look(doctor.Where{Dir: a.dir, Port: d.Bind, Running: a.running(), Spare: node.SpareMemory()}))
	worst := doctor.Worst(found)
	err := a.print(map[string]any{"worst": worst, "findings": found}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		for _, f := range found {
			fmt.Fprintf(t, "%s\t%s\t%s\n", f.Check, f.Level, f.Text)
			if f.Fix != "" {
				fmt.Fprintf(t, "\t\t-> %s\n", f.Fix)
			}
		}
		t.Flush()
	})
	if err == nil && worst == doctor.Problem {
		err = errUnwell
	}
	return err
}

// running says whether a node of the state directory answers.
func (a *app) running() bool {
	ctx, cancel := context.WithTimeout(a.ctx, asking)
	defer cancel()
	c, err := a.dial()
	if err != nil {
		return false
	}
	defer c.Close()
	_, err = c.Cluster(ctx, &proto.ClusterRequest{})
	return err == nil
}
