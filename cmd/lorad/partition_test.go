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
// off commits nothing, and when its cable is back it catches up.
func TestPulledCable(t *testing.T) {
	if why := netlab.Missing(); why != "" {
		t.Skip(why)
	}
	t.Setenv(beLorad, "1")
	lab, err := netlab.New(3, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	count := 0
	c, err := startPrepared(t.Context(), 3, func(n *localNode) error {
		i := count
		count++
		n.addr = lab.Addr(i) + ":7840"
		n.command = func(name string, args ...string) *exec.Cmd { return lab.Command(i, name, args...) }
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	j := tiny{Steps: 500}
	_, req := lay(t, j)
	const cut = 2
	var before uint64
	pulled := atStep(100, func() {
		if err := lab.Cut(cut); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // what had arrived still takes effect
		before = committedAt(t, c.nodes[cut])
	})
	gone := time.Time{}
	r := trainOn(t, c, 0, req, func(e *proto.FollowEvent) bool {
		switch {
		case pulled != nil:
			if pulled(e) {
				pulled = nil
			}
		case gone.IsZero() && e.Run.Lease.Generation > 1 && e.Run.Step > before+50:
			gone = time.Now()
			if now := committedAt(t, c.nodes[cut]); now != before {
				t.Errorf("the node that is cut off commits: step %d, it was %d", now, before)
			}
			if err := lab.Mend(cut); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	if got, want := view(r, nil).AdapterSHA256, alone(t, j); got != want || gone.IsZero() {
		t.Errorf("with a pulled cable: %s, undisturbed: %s (went on without: %v)", got, want, !gone.IsZero())
	}
	deadline := time.Now().Add(30 * time.Second)
	for committedAt(t, c.nodes[cut]) != r.Step && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if got := committedAt(t, c.nodes[cut]); got != r.Step {
		t.Errorf("the node that was cut off is at step %d of %d", got, r.Step)
	}
}

// committedAt is the last step that a node calls committed, of its only run.
func committedAt(t *testing.T, n *localNode) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
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
