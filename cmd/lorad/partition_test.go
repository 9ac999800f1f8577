package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"lorad/internal/netlab"
	"lorad/proto"
)

// Three nodes with cables of their own: one is pulled in the middle of the run. The others go on, the one that is cut
// off commits nothing, and when its cable is back it catches up and is a member again.
func TestPulledCable(t *testing.T) {
	if why := netlab.Missing(); why != "" {
		t.Skip(why)
	}
	lab, err := netlab.New(3, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	count := 0
	c := clusterOf(t, 3, func(n *localNode) error {
		i := count
		count++
		n.addr = lab.Addr(i) + ":7840"
		n.command = func(name string, args ...string) *exec.Cmd { return lab.Command(i, name, args...) }
		return nil
	})
	j := tiny{Steps: endless}
	_, req := lay(t, j)
	const cut = 2
	var before uint64
	r := runUntil(t, c.nodes[0], c.nodes[0], req, inTurn(
		atStep(30, func() {
			if err := lab.Cut(cut); err != nil {
				t.Error(err)
			}
			before = settledAt(t, c.nodes[cut])
		}),
		when(func(r *proto.Run) bool { return r.Lease.Generation > 1 && r.Step > before+50 }, func() {
			if now := committedAt(t, c.nodes[cut]); now != before {
				t.Errorf("the node that is cut off commits: step %d, it was %d", now, before)
			}
			if err := lab.Mend(cut); err != nil {
				t.Error(err)
			}
		}),
		when(func(r *proto.Run) bool { return len(r.Lease.Members) == 3 }, func() {}),
		more(10),
	))
	asUndisturbed(t, j, r)
	deadline := time.Now().Add(time.Minute)
	for committedAt(t, c.nodes[cut]) != r.Step && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if got := committedAt(t, c.nodes[cut]); got != r.Step {
		t.Errorf("the node that was cut off is at step %d of %d", got, r.Step)
	}
}

// settledAt is the last step that a node calls committed once nothing arrives there any more.
func settledAt(t *testing.T, n *localNode) uint64 {
	t.Helper()
	for last := committedAt(t, n); ; {
		time.Sleep(time.Second)
		now := committedAt(t, n)
		if now == last {
			return now
		}
		last = now
	}
}

// committedAt is the last step that a node calls committed, of its only run.
func committedAt(t *testing.T, n *localNode) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl, err := dial(ctx, n.dir)
	if err != nil {
		t.Fatalf("%s: %v", filepath.Base(n.dir), err)
	}
	defer cl.Close()
	reply, err := cl.Runs(ctx, &proto.RunsRequest{})
	if err != nil || len(reply.Runs) != 1 {
		t.Fatalf("%s: %v, %v", n.name, reply, err)
	}
	return reply.Runs[0].Step
}
