package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"lorad/embedded"
	"lorad/proto"
)

// beLorad makes the test binary behave as lorad, so that tests run real processes of the very code under test.
const beLorad = "LORAD_TEST_BE_LORAD"

func TestMain(m *testing.M) {
	if os.Getenv(beLorad) != "" {
		os.Exit(run(os.Args[1:]))
	}
	testscript.Main(m, map[string]func(){"lorad": func() { os.Exit(run(os.Args[1:])) }})
}

// The command line is pinned by script files.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("LORAD_DIR", filepath.Join(e.WorkDir, "state"))
			return layTiny(e.WorkDir, tiny{Steps: 6})
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "eventually": eventually, "token": token, "confirm": confirm, "until": until},
	})
}

// exits CODE lorad ARGS... runs a command that must end with that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		code = failed.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if want := args[0]; strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s", code, want)
	}
}

// eventually lorad ARGS... repeats a command until it succeeds: a node that the script started needs a moment.
func eventually(ts *testscript.TestScript, _ bool, args []string) {
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
	}
	ts.Fatalf("%v", err)
}

// until PATTERN lorad ARGS... repeats a command until it succeeds and prints what the pattern is found in.
func until(ts *testscript.TestScript, _ bool, args []string) {
	want, out := regexp.MustCompile(args[0]), ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if out = ts.ReadFile("stdout"); err == nil && want.MatchString(out) {
			return
		}
	}
	ts.Fatalf("%s is not in:\n%s", want, out)
}

// token takes what lorad token create printed into the environment of what follows.
func token(ts *testscript.TestScript, _ bool, _ []string) {
	var s started
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &s))
	ts.Setenv("ADDR", s.Addr)
	ts.Setenv(tokenEnv, s.Token)
}

// confirm takes the code that lorad recover printed into the environment of what follows.
func confirm(ts *testscript.TestScript, _ bool, _ []string) {
	var v recoveryView
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	ts.Setenv("CODE", v.Confirm)
}

// tiny is a job that trains in milliseconds: a two-layer model from random weights on the embedded tokenizer.
type tiny struct {
	Steps int
	Wide  int    // intermediate_size, for steps that take longer and a state that is larger: 192 bytes of it each
	Wire  string // reduce_wire
	More  string // further lines of the job
}

// layTiny writes base/, data.jsonl and job.yaml.
func layTiny(dir string, j tiny) error {
	base := embedded.Base()
	names, err := fs.Glob(base, "*.json")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "base"), 0o755); err != nil {
		return err
	}
	files := map[string][]byte{"data.jsonl": tinyData(), "job.yaml": []byte(fmt.Sprintf(tinyJob, j.Steps, cmp.Or(j.Wire, "exact")) + j.More)}
	for _, n := range names {
		if files["base/"+n], err = fs.ReadFile(base, n); err != nil {
			return err
		}
	}
	if files["base/config.json"], err = shrink(files["base/config.json"], cmp.Or(j.Wide, 32)); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func shrink(config []byte, wide int) ([]byte, error) {
	var c map[string]any
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	for k, v := range map[string]int{"hidden_size": 16, "intermediate_size": wide, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8} {
		c[k] = v
	}
	return json.Marshal(c)
}

const tinyJob = `name: tiny
base_model: base
adapter: full
init: random
datasets:
  - path: data.jsonl
val_set_size: 6
curriculum: paced
global_batch_size: 10
micro_batch_size: 2
max_steps: %d
learning_rate: 1e-2
warmup_steps: 2
eval_steps: 20
save_steps: 25
reduce_wire: %s
output_dir: out
`

func tinyData() []byte {
	var b bytes.Buffer
	for i := range 47 {
		fmt.Fprintf(&b, `{"prompt": "Question: what is %d and one?\nAnswer:", "completion": " It is %d%s."}`+"\n", i, i+1, strings.Repeat(" indeed", i%5))
	}
	return b.Bytes()
}

// lay puts a tiny job into a new directory and returns the request that submits it.
func lay(t testing.TB, j tiny) (dir string, req *proto.SubmitRequest) {
	t.Helper()
	dir = t.TempDir()
	if err := layTiny(dir, j); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return dir, &proto.SubmitRequest{JobYaml: string(text), Dir: dir}
}

// lorad starts a lorad process in dir.
func lorad(t *testing.T, dir string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), beLorad+"=1", "LORAD_DIR="+filepath.Join(dir, "no-node-here"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, &out
}

// alone trains the tiny job in one undisturbed process and returns the SHA-256 of the result.
func alone(t *testing.T, j tiny) string {
	t.Helper()
	dir, _ := lay(t, j)
	cmd, out := lorad(t, dir, "train", "job.yaml", "-o", "json")
	if err := cmd.Wait(); err != nil {
		t.Fatalf("train: %v\n%s", err, out)
	}
	return sha(t, out.String())
}

// sha finds the result in what lorad train -o json printed among its messages.
func sha(t *testing.T, out string) string {
	t.Helper()
	for _, line := range strings.Split(out, "\n") {
		var v runView
		if json.Unmarshal([]byte(line), &v) == nil && v.AdapterSHA256 != "" {
			return v.AdapterSHA256
		}
	}
	t.Fatalf("no result in:\n%s", out)
	return ""
}

func cluster(t *testing.T, n int) *localCluster {
	t.Helper()
	return clusterOf(t, n, nil)
}

// clusterOf is a cluster each of whose nodes prepare has had a look at before.
func clusterOf(t *testing.T, n int, prepare func(*localNode) error) *localCluster {
	t.Helper()
	t.Setenv(beLorad, "1")
	c, err := startPrepared(t.Context(), n, prepare)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	allThere(t, c)
	return c
}

// disturb is called with every event of a run until it returns true.
type disturb func(*proto.FollowEvent) bool

func (d *disturb) show(e *proto.FollowEvent) {
	if *d != nil && (*d)(e) {
		*d = nil
	}
}

// trainOn submits to node i and follows to the end, from node i, disturbing on the way.
func trainOn(t *testing.T, c *localCluster, i int, req *proto.SubmitRequest, d disturb) *proto.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cl, err := dial(ctx, c.nodes[i].dir)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	reply, err := cl.Submit(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	r, err := cl.follow(ctx, reply.Run.Spec.Run, 0, &d)
	if err != nil || r.Phase != proto.Phase_DONE {
		t.Fatalf("run ended %v, %v\n%s", r, err, c.nodes[i].errs)
	}
	return r
}

// atStep makes a disturbance that happens once, when a step is seen in the ledger.
func atStep(step uint64, do func()) disturb {
	return func(e *proto.FollowEvent) bool {
		if e.Run.Step < step {
			return false
		}
		do()
		return true
	}
}

func TestThreeNodesGiveTheBytesOfOne(t *testing.T) {
	j := tiny{Steps: 30}
	_, req := lay(t, j)
	r := trainOn(t, cluster(t, 3), 1, req, nil)
	if got, want := view(r, nil).AdapterSHA256, alone(t, j); got != want {
		t.Errorf("three nodes: %s, one: %s", got, want)
	}
	if len(r.Checkpoints) != 2 || len(r.Checkpoints[1].Nodes) == 0 {
		t.Errorf("checkpoints: %v, want those of steps 25 and 30", r.Checkpoints)
	}
	if len(r.Lease.Members) != 3 {
		t.Errorf("members: %v", r.Lease.Members)
	}
}

// The lossy wire is as independent of the nodes as the exact one: units come from the replica, and what is rounded is a micro-batch.
func TestInt16WireGivesTheBytesOfOne(t *testing.T) {
	j := tiny{Steps: 30, Wire: "int16"}
	_, req := lay(t, j)
	r := trainOn(t, cluster(t, 3), 1, req, nil)
	got := view(r, nil).AdapterSHA256
	if want := alone(t, j); got != want {
		t.Errorf("three nodes: %s, one: %s", got, want)
	}
	if got == alone(t, tiny{Steps: 30}) {
		t.Error("the result is that of the exact wire")
	}
}

// A worker and then the leader are killed: the states are those of one undisturbed process.
func TestKilledNodesLeaveNoTrace(t *testing.T) {
	j := tiny{Steps: endless}
	_, req := lay(t, j)
	c := cluster(t, 4)
	kill := func(i int) func() {
		return func() { c.nodes[i].cmd.Process.Signal(syscall.SIGKILL) }
	}
	r := runUntil(t, c.nodes[1], c.nodes[1], req, inTurn(atStep(30, kill(3)), recovered(1, kill(0)), recovered(2, func() {}), more(30)))
	asUndisturbed(t, j, r)
	if len(r.Lease.Members) != 2 {
		t.Errorf("members at the end: %v", r.Lease.Members)
	}
}

// Ctrl-C checkpoints and says how to resume, kill -9 says nothing; either way the same command goes on to the same
// bytes.
func TestInterruptedRunResumes(t *testing.T) {
	j := tiny{Steps: 400}
	want := alone(t, j)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			dir, _ := lay(t, j)
			cmd, out := lorad(t, dir, "train", "job.yaml")
			waitFor(t, filepath.Join(dir, "out", "checkpoint-50", "lorad_state.json"))
			cmd.Process.Signal(sig)
			cmd.Wait()
			if sig == syscall.SIGINT {
				if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
					t.Errorf("exit code %d, want %d", code, exitInterrupted)
				}
				if !strings.Contains(out.String(), "resume with: lorad train job.yaml") {
					t.Errorf("no word on how to resume:\n%s", out)
				}
			}
			cmd, out = lorad(t, dir, "train", "job.yaml", "-o", "json")
			if err := cmd.Wait(); err != nil {
				t.Fatalf("resume: %v\n%s", err, out)
			}
			if got := sha(t, out.String()); got != want {
				t.Errorf("resumed: %s, undisturbed: %s", got, want)
			}
		})
	}
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s did not appear", path)
}
