package main

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"lorad/proto"
)

// A run whose last member is killed, the only one with its newest state, goes on with the state of those who had left before: they compute the steps
// in between again, to the same bytes. When the dead one is back, it has the result.
func TestAbandonedRunGoesOn(t *testing.T) {
	j := tiny{Steps: 900}
	_, req := lay(t, j)
	c := cluster(t, 3)
	home := c.nodes[1]
	drain := func(name string, undo ...string) {
		args := append([]string{"drain", name, "--dir", home.dir}, undo...)
		if out, err := exec.Command(os.Args[0], args...).CombinedOutput(); err != nil {
			t.Errorf("lorad drain: %v: %s", err, out)
		}
	}
	var killed uint64
	events := inTurn(
		atStep(50, func() { drain("node-1"); drain("node-3") }),
		func(e *proto.FollowEvent) bool {
			if len(e.Run.Lease.Members) > 1 {
				return false
			}
			drain("node-1", "--undo")
			drain("node-3", "--undo")
			home.cmd.Process.Signal(syscall.SIGKILL)
			return true
		},
		func(e *proto.FollowEvent) bool {
			if len(e.Run.Lease.Members) == 1 {
				killed = e.Run.Step
				return false
			}
			return e.Run.Step > killed+100
		},
		func(*proto.FollowEvent) bool {
			<-home.done
			if err := home.launch("", "up"); err != nil {
				t.Error(err)
			}
			return true
		},
	)
	r := followed(t, c, req, events)
	if r.Phase != proto.Phase_DONE || killed == 0 || int(killed) > j.Steps-200 {
		t.Fatalf("%v at step %d; the last member was killed after step %d", r.Phase, r.Step, killed)
	}
	if got, want := view(r, nil).AdapterSHA256, alone(t, j); got != want {
		t.Errorf("disturbed: %s, undisturbed: %s", got, want)
	}
}

// followed submits to node 1 and follows on node 0, which outlives it.
func followed(t *testing.T, c *localCluster, req *proto.SubmitRequest, d disturb) *proto.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	at, err := dial(ctx, c.nodes[1].dir)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	reply, err := at.Submit(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	from, err := dial(ctx, c.nodes[0].dir)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	r, err := from.follow(ctx, reply.Run.Spec.Run, 0, &d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
