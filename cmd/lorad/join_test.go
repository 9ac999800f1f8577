package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
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

// A node that runs another build says so in one sentence and never becomes a member of a run.
func TestOtherBuildTakesNoPart(t *testing.T) {
	j := tiny{Steps: 100_000}
	_, req := lay(t, j)
	c, _ := loggedCluster(t, 1)
	other := anotherBuild(t)
	cl, err := dial(t.Context(), c.nodes[0].dir)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	token, err := cl.CreateToken(t.Context(), &proto.CreateTokenRequest{Uses: 1, TtlMs: 60_000, Role: "worker"})
	if err != nil {
		t.Fatal(err)
	}
	said := &journal{}
	refused := atStep(5, func() {
		cmd := exec.Command(other, "join", c.nodes[0].addr, "--bind", "127.0.0.1:0", "--name", "stranger", "--dir", filepath.Join(t.TempDir(), "state"))
		cmd.Env = append(os.Environ(), tokenEnv+"="+token.Token)
		cmd.Stderr = said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	})
	var last *proto.Run
	stop := false
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	reply, err := cl.Submit(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	watch := disturb(func(e *proto.FollowEvent) bool {
		last = e.Run
		refused.show(e)
		if !stop && strings.Contains(said.String(), "takes no part: the run is on lorad") {
			stop = true
			if _, err := cl.Stop(ctx, &proto.StopRequest{Run: e.Run.Spec.Run}); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	if _, err := cl.follow(ctx, reply.Run.Spec.Run, 0, &watch); err != nil {
		t.Fatal(err)
	}
	if !stop || last.Lease.Generation != 1 || len(last.Lease.Members) != 1 {
		t.Errorf("it said so: %v; generation %d with %d members:\n%s", stop, last.Lease.Generation, len(last.Lease.Members), said)
	}
	if n := strings.Count(said.String(), "takes no part"); n != 1 {
		t.Errorf("it said so %d times:\n%s", n, said)
	}
}

// anotherBuild is this program in a file that is not the same, which is what makes a development build another version.
func anotherBuild(t *testing.T) string {
	t.Helper()
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "lorad")
	if err := os.WriteFile(path, append(program, 0), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
