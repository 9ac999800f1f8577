package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// journal is a log that is read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

var gradients = regexp.MustCompile(`msg="work on the run has ended here".* micro_batches=(\d+)`)

// computed is how many gradients of micro-batches a log says were computed.
func computed(log string) (n int) {
	for _, m := range gradients.FindAllStringSubmatch(log, -1) {
		k, _ := strconv.Atoi(m[1])
		n += k
	}
	return n
}

// loggedCluster is a cluster whose nodes' logs are kept.
func loggedCluster(t *testing.T, n int, prepare func(*localNode) error) (*localCluster, []*journal) {
	t.Helper()
	var logs []*journal
	c := clusterOf(t, n, func(n *localNode) error {
		logs = append(logs, &journal{})
		n.log = logs[len(logs)-1]
		if prepare == nil {
			return nil
		}
		return prepare(n)
	})
	return c, logs
}

// A node that is drained, and one that is told to end, leave between two steps: the cluster computes exactly what one
// undisturbed process computes, and the result is its.
func TestDrainComputesNothingTwice(t *testing.T) {
	j := tiny{Steps: 300}
	c, logs := loggedCluster(t, 4, far(t))
	_, req := lay(t, j)
	drain := func() {
		if out, err := exec.Command(os.Args[0], "drain", "node-3", "--dir", c.nodes[0].dir).CombinedOutput(); err != nil {
			t.Errorf("lorad drain: %v: %s", err, out)
		}
	}
	first := c.nodes[0] // leads, and works
	r := trainOn(t, c, 1, req, inTurn(
		atStep(20, drain),
		recovered(1, func() { first.cmd.Process.Signal(syscall.SIGTERM) }),
	))
	if r.Trouble != nil {
		t.Errorf("a generation was given up: %v", r.Trouble)
	}
	if len(r.Lease.Members) != 2 || r.Yielded != 2 {
		t.Errorf("at the end generation %d has the members %v; the last one that a node left was %d", r.Lease.Generation, r.Lease.Members, r.Yielded)
	}
	<-first.done
	want, bytesOfOne := aloneCounted(t, j)
	if all := computedByAll(logs, want); all != want {
		t.Errorf("%d gradients were computed, one node computes %d", all, want)
	}
	if got := view(r, nil).AdapterSHA256; got != bytesOfOne {
		t.Errorf("drained: %s, undisturbed: %s", got, bytesOfOne)
	}
}

// computedByAll adds the nodes' logs up once all of them have heard that the run is over.
func computedByAll(logs []*journal, want int) (all int) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		all = 0
		for _, l := range logs {
			all += computed(l.String())
		}
		if all >= want {
			break
		}
	}
	return all
}

// aloneCounted is alone, with the number of gradients.
func aloneCounted(t *testing.T, j tiny) (gradients int, sum string) {
	t.Helper()
	dir, _ := lay(t, j)
	cmd, out := lorad(t, dir, "train", "job.yaml", "-o", "json", "--verbose")
	if err := cmd.Wait(); err != nil {
		t.Fatalf("train: %v\n%s", err, out)
	}
	return computed(out.String()), sha(t, out.String())
}

// One node alone that is told to end saves first: nothing that it has done is done again.
func TestLastNodeSavesBeforeItEnds(t *testing.T) {
	j := tiny{Steps: 400}
	dir, _ := lay(t, j)
	home := filepath.Join(dir, "home")
	node := func() (*exec.Cmd, *bytes.Buffer) {
		return lorad(t, dir, "up", "--dir", home, "--bind", "127.0.0.1:0", "--verbose")
	}
	up, first := node()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if submit, _ := lorad(t, dir, "train", "job.yaml", "--dir", home, "--detach"); submit.Wait() == nil {
			break
		}
	}
	waitFor(t, filepath.Join(dir, "out", "checkpoint-50", "lorad_state.json"))
	up.Process.Signal(syscall.SIGTERM)
	if err := up.Wait(); err != nil {
		t.Fatalf("up: %v\n%s", err, first)
	}
	_, second := node()
	var result string
	for deadline := time.Now().Add(2 * time.Minute); result == "" && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if watch, out := lorad(t, dir, "train", "job.yaml", "--dir", home, "-o", "json"); watch.Wait() == nil {
			result = sha(t, out.String())
		}
	}
	want, bytesOfOne := aloneCounted(t, j)
	if got := computed(first.String()) + computed(second.String()); got != want || result != bytesOfOne {
		t.Errorf("%d gradients and %s, an undisturbed run computes %d and gives %s", got, result, want, bytesOfOne)
	}
}
