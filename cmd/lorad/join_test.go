package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lorad/proto"
)

// joiner starts one node more and returns at once.
func joiner(t *testing.T, c *localCluster, name string) (*localNode, *journal) {
	t.Helper()
	cl, err := dial(t.Context(), c.nodes[0].dir)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	token, err := cl.CreateToken(t.Context(), &proto.CreateTokenRequest{Uses: 1, TtlMs: 20_000, Role: "worker"})
	if err != nil {
		t.Fatal(err)
	}
	log := &journal{}
	n := &localNode{name: name, dir: filepath.Join(c.dir, name), addr: "127.0.0.1:0", threads: 1, log: log, errs: &tail{}}
	if err := n.launch(token.Token, "join", c.nodes[0].addr); err != nil {
		t.Fatal(err)
	}
	c.nodes = append(c.nodes, n)
	return n, log
}

// A node joins while three others train, and the one that it copies the state from is killed in the middle of the copy:
// it copies from another one, and every step gives the state that it gives on one undisturbed node. The run is stopped when all
// that has happened, however fast the machine is.
func TestJoinSurvivesItsDonor(t *testing.T) {
	_, req := lay(t, tiny{Steps: 100_000, Wide: 20_000})
	c, logs := loggedCluster(t, 3)
	var log *journal
	var joined, settled uint64 // steps
	ledger := ledgerUntil(t, c.nodes[1], req, func(r *proto.Run) bool {
		switch {
		case log == nil && r.Step >= 3:
			_, log = joiner(t, c, "late")
			joined = r.Step
			go func() {
				donor := servesFirst(logs)
				c.nodes[donor].cmd.Process.Signal(syscall.SIGKILL)
			}()
		case settled == 0 && r.Recoveries >= 2:
			settled = r.Step
		}
		return settled > 0 && r.Step >= settled+4 || r.Step > joined+2_000
	})
	if n := strings.Count(log.String(), "copied the state of a peer"); n == 0 {
		t.Errorf("the node that joined has copied no state:\n%s", log)
	}
	served := 0
	for _, l := range logs {
		served += strings.Count(l.String(), "serves the state")
	}
	if served < 2 || settled == 0 {
		t.Errorf("the state was served %d times: was the donor killed in time?", served)
	}
	one, _ := loggedCluster(t, 1)
	want := ledgerUntil(t, one.nodes[0], req, func(r *proto.Run) bool { return r.Step >= uint64(len(ledger)) })
	if n := differing(want[:len(ledger)], ledger); n > 0 {
		t.Errorf("%d of %d steps gave another state than undisturbed", n, len(ledger))
	}
}

// ledgerUntil submits to a node, stops the run as soon as enough says so, and returns its ledger.
func ledgerUntil(t *testing.T, n *localNode, req *proto.SubmitRequest, enough func(*proto.Run) bool) []*proto.StepRecord {
	t.Helper()
	stopOn(t, n, req, func(e *proto.FollowEvent) bool {
		if !enough(e.Run) {
			return false
		}
		if out, err := exec.Command(os.Args[0], "runs", "stop", e.Run.Spec.Name, "--dir", n.dir).CombinedOutput(); err != nil {
			t.Errorf("lorad runs stop: %v: %s", err, out)
		}
		return true
	})
	r, _, err := ask(t.Context(), n.dir, "tiny")
	if err != nil {
		t.Fatal(err)
	}
	return r.Ledger
}

// servesFirst is the node that begins to serve the state.
func servesFirst(logs []*journal) int {
	for {
		for i, l := range logs {
			if strings.Contains(l.String(), "serves the state") {
				return i
			}
		}
		time.Sleep(100 * time.Microsecond)
	}
}
