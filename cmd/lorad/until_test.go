package main

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"lorad/proto"
)

// What happens to a run is over when it is over, not after so many steps: these tests submit a run that no machine finishes, stop it when all
// has happened that they are about, and compare the states of all its steps with those of an undisturbed run.

// endless is more steps than any machine does during a test.
const endless = 1_000_000

// when disturbs once, as soon as a run looks so.
func when(so func(*proto.Run) bool, do func()) disturb {
	return func(e *proto.FollowEvent) bool {
		if !so(e.Run) {
			return false
		}
		do()
		return true
	}
}

// recovered disturbs once the run is in its generation 1+n.
func recovered(n uint64, do func()) disturb {
	return when(func(r *proto.Run) bool { return r.Recoveries >= n }, do)
}

// more waits for n more steps.
func more(n uint64) disturb {
	var since uint64
	return func(e *proto.FollowEvent) bool {
		if since == 0 {
			since = e.Run.Step
		}
		return e.Run.Step >= since+n
	}
}

// inTurn disturbs by one after the other.
func inTurn(all ...disturb) disturb {
	return func(e *proto.FollowEvent) bool {
		for len(all) > 0 && all[0](e) {
			all = all[1:]
		}
		return len(all) == 0
	}
}

// runUntil submits to a node, follows from one that outlives all that is done, stops the run when it is done, and returns it with its ledger.
func runUntil(t *testing.T, home, from *localNode, req *proto.SubmitRequest, done disturb) *proto.Run {
	t.Helper()
	r := followed(t, home, from, req, func(e *proto.FollowEvent) bool {
		if !done(e) {
			return false
		}
		if out, err := exec.Command(os.Args[0], "runs", "stop", e.Run.Spec.Run, "--dir", from.dir).CombinedOutput(); err != nil {
			t.Errorf("lorad runs stop: %v: %s", err, out)
		}
		return true
	})
	r, _, err := ask(t.Context(), from.dir, r.Spec.Run)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// followed submits to a node and follows from another, disturbing on the way, until the run has come to a halt.
func followed(t *testing.T, home, from *localNode, req *proto.SubmitRequest, d disturb) *proto.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	at, err := dial(ctx, home.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	reply, err := at.Submit(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := dial(ctx, from.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	r, err := watcher.follow(ctx, reply.Run.Spec.Run, 0, &d)
	if err != nil {
		t.Fatalf("%v\n%s", err, from.errs)
	}
	return r
}

// asUndisturbed checks that the steps of a run of the job gave the states that they give on one node which nothing happens to.
func asUndisturbed(t *testing.T, j tiny, r *proto.Run) {
	t.Helper()
	_, req := lay(t, j)
	one := cluster(t, 1).nodes[0]
	n := len(r.Ledger)
	want := runUntil(t, one, one, req, func(e *proto.FollowEvent) bool { return e.Run.Step >= uint64(n) })
	if n == 0 || len(want.Ledger) < n || differing(want.Ledger[:n], r.Ledger) > 0 {
		t.Errorf("of %d steps %d gave another state than undisturbed", n, differing(want.Ledger[:min(n, len(want.Ledger))], r.Ledger))
	}
}
