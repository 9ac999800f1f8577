package main

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"lorad/proto"
)

// A run whose last member is killed, the only one with its newest state, goes on with the state of those who had left before: they compute the steps
// in between again, to the same states. The dead one comes back as a member.
func TestAbandonedRunGoesOn(t *testing.T) {
	j := tiny{Steps: endless}
	_, req := lay(t, j)
	c := cluster(t, 3)
	first, home := c.nodes[0], c.nodes[1]
	drain := func(name string, undo ...string) {
		args := append([]string{"drain", name, "--dir", first.dir}, undo...)
		if out, err := exec.Command(os.Args[0], args...).CombinedOutput(); err != nil {
			t.Errorf("lorad drain: %v: %s", err, out)
		}
	}
	members := func(n int) func(*proto.Run) bool {
		return func(r *proto.Run) bool { return len(r.Lease.Members) == n }
	}
	var alone uint64
	r := runUntil(t, home, first, req, inTurn(
		atStep(50, func() { drain("node-1"); drain("node-3") }),
		when(members(1), func() {}),
		more(30),
		func(e *proto.FollowEvent) bool {
			home.cmd.Process.Signal(syscall.SIGKILL)
			alone = e.Run.Lease.Generation
			drain("node-1", "--undo")
			drain("node-3", "--undo")
			return true
		},
		when(members(2), func() {
			<-home.done
			if err := home.launch("", "up"); err != nil {
				t.Error(err)
			}
		}),
		when(members(3), func() {}),
		more(10),
	))
	if r.Ledger[len(r.Ledger)-1].Generation <= alone {
		t.Errorf("the last step is of generation %d; that of the one who died was %d", r.Ledger[len(r.Ledger)-1].Generation, alone)
	}
	asUndisturbed(t, j, r)
}
