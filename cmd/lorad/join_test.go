package main

import (
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
// it copies from another one, and every step gives the state that it gives on one undisturbed node.
func TestJoinSurvivesItsDonor(t *testing.T) {
	j := tiny{Steps: endless, Wide: 20_000}
	_, req := lay(t, j)
	c, logs := loggedCluster(t, 3, nil)
	var log *journal
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	r := runUntil(t, c.nodes[1], c.nodes[1], req, inTurn(
		atStep(3, func() {
			_, log = joiner(t, c, "late")
			go func() {
				if donor := servesFirst(logs, ended); donor >= 0 {
					c.nodes[donor].cmd.Process.Signal(syscall.SIGKILL)
				}
			}()
		}),
		recovered(2, func() {}),
		more(4),
	))
	if n := strings.Count(log.String(), "copied the state of a peer"); n == 0 {
		t.Errorf("the node that joined has copied no state:\n%s", log)
	}
	served := 0
	for _, l := range logs {
		served += strings.Count(l.String(), "serves the state")
	}
	if served < 2 {
		t.Errorf("the state was served %d times: was the donor killed in time?", served)
	}
	asUndisturbed(t, j, r)
}

// servesFirst is the node that begins to serve the state, or -1 if the test ended before.
func servesFirst(logs []*journal, ended <-chan struct{}) int {
	for {
		for i, l := range logs {
			if strings.Contains(l.String(), "serves the state") {
				return i
			}
		}
		select {
		case <-ended:
			return -1
		case <-time.After(100 * time.Microsecond):
		}
	}
}
