package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lorad/proto"
)

// heavier makes the model of a job larger, so that copying its state takes a moment: 12 bytes for each of some million
// parameters.
func heavier(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "base", "config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	c["intermediate_size"] = 20_000
	text, _ = json.Marshal(c)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

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

// A node joins while two others train, and the one that it copies the state from is killed in the middle of the copy: it
// copies from the other one, and the result is that of one undisturbed process.
func TestJoinSurvivesItsDonor(t *testing.T) {
	j := tiny{Steps: 70}
	dir, req := lay(t, j)
	heavier(t, dir)
	c, logs := loggedCluster(t, 3)
	var log *journal
	r := trainOn(t, c, 1, req, atStep(3, func() {
		_, log = joiner(t, c, "late")
		go func() {
			donor := servesFirst(logs)
			c.nodes[donor].cmd.Process.Signal(syscall.SIGKILL)
		}()
	}))
	if n := strings.Count(log.String(), "copied the state of a peer"); n == 0 {
		t.Errorf("the node that joined has copied no state:\n%s", log)
	}
	served := 0
	for _, l := range logs {
		served += strings.Count(l.String(), "serves the state")
	}
	if served < 2 || r.Recoveries < 2 {
		t.Errorf("the state was served %d times in %d recoveries: was the donor killed in time?", served, r.Recoveries)
	}
	alone, out := lorad(t, dir, "train", "job.yaml", "-o", "json")
	os.RemoveAll(filepath.Join(dir, "out"))
	if err := alone.Wait(); err != nil {
		t.Fatalf("train: %v\n%s", err, out)
	}
	if got, want := view(r, nil).AdapterSHA256, sha(t, out.String()); got != want {
		t.Errorf("joined: %s, undisturbed: %s", got, want)
	}
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
