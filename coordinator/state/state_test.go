package state

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lorad/proto"
)

func sum(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// bench is a machine with two nodes and one run of 10 steps, and a clock that the test turns.
type bench struct {
	*testing.T
	m   *Machine
	now int64
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, m: New(), now: 1000}
	for _, id := range []string{"a", "b"} {
		b.ok(putNode(id, "host"))
	}
	b.ok(submit("r", 10, "a"))
	return b
}

func (b *bench) apply(c *proto.Command) (Result, error) {
	c.NowUnixMs = b.now
	return b.m.Apply(c)
}

func (b *bench) ok(c *proto.Command) Result {
	b.Helper()
	res, err := b.apply(c)
	if err != nil {
		b.Fatal(err)
	}
	return res
}

func (b *bench) refused(kind Kind, c *proto.Command) {
	b.Helper()
	before, _ := b.m.Hash()
	_, err := b.apply(c)
	var e *Error
	if !errors.As(err, &e) || e.Kind != kind {
		b.Fatalf("got %v, want a refusal of kind %q", err, kind)
	}
	if after, _ := b.m.Hash(); after != before {
		b.Fatalf("the refusal %q changed the state", e)
	}
}

func (b *bench) phase(want proto.Phase) *proto.Run {
	b.Helper()
	r := b.m.Run("r")
	if r.Phase != want {
		b.Fatalf("phase %s (%s), want %s", r.Phase, r.Reason, want)
	}
	return r
}

func putNode(id, name string) *proto.Command {
	return &proto.Command{Do: &proto.Command_PutNode{PutNode: &proto.PutNode{Node: &proto.Node{Id: id, Name: name, Addr: id + ":1"}}}}
}

func submit(run string, steps uint64, home string) *proto.Command {
	return &proto.Command{Do: &proto.Command_SubmitRun{SubmitRun: &proto.SubmitRun{
		Spec: &proto.Spec{Run: run, Name: "n-" + run, Steps: steps, MicroBatches: 4, HomeNode: home}}}}
}

func grant(gen, from, until uint64, members ...string) *proto.Command {
	return &proto.Command{Do: &proto.Command_GrantLease{GrantLease: &proto.GrantLease{Run: "r", Reason: "granted",
		Lease: &proto.Lease{Generation: gen, Members: members, From: from, Until: until}}}}
}

func stop(settle bool) *proto.Command {
	return &proto.Command{Do: &proto.Command_StopRun{StopRun: &proto.StopRun{Run: "r", Settle: settle}}}
}

func resume() *proto.Command {
	return &proto.Command{Do: &proto.Command_ResumeRun{ResumeRun: &proto.ResumeRun{Run: "r"}}}
}

func report(p *proto.Report) *proto.Command {
	p.Run = "r"
	return &proto.Command{Do: &proto.Command_Report{Report: p}}
}

func steps(from, to uint64) []*proto.StepRecord {
	var s []*proto.StepRecord
	for i := from; i <= to; i++ {
		s = append(s, &proto.StepRecord{Step: i, Loss: 1 / float64(i), Tokens: 7, Digest: i * 31})
	}
	return s
}

func TestRunGoesThrough(t *testing.T) {
	b := newBench(t)
	b.ok(grant(1, 1, 6, "a", "b"))
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Steps: steps(1, 3)}))
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Steps: steps(1, 4), Checkpoint: &proto.Checkpoint{Step: 4, Sha256: sum(4)}}))
	b.refused(Gap, report(&proto.Report{Generation: 1, Node: "a", Steps: steps(6, 6)}))
	b.refused(Invalid, report(&proto.Report{Generation: 1, Node: "a", Steps: steps(4, 6)}))
	b.refused(Invalid, grant(1, 1, 5, "a", "b"))
	b.ok(grant(1, 1, 11, "a", "b"))
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Steps: steps(4, 10), Checkpoint: &proto.Checkpoint{Step: 4, Sha256: sum(4)}}))
	b.refused(Gap, report(&proto.Report{Generation: 1, Node: "b", Outcome: proto.Outcome_FINISHED}))
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Outcome: proto.Outcome_FINISHED, AdapterSha256: sum(9)}))
	b.phase(proto.Phase_RUNNING) // the home node has not written its files yet
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Outcome: proto.Outcome_FINISHED, AdapterSha256: sum(9)}))
	r := b.phase(proto.Phase_DONE)
	if len(Ledger(r)) != 10 || Ledger(r)[0].Node != "a" || Ledger(r)[3].Node != "b" || Ledger(r)[9].Loss != 0.1 {
		t.Errorf("ledger: %v", Ledger(r))
	}
	if c := r.Checkpoints; len(c) != 1 || strings.Join(c[0].Nodes, ",") != "a,b" {
		t.Errorf("checkpoints: %v", c)
	}
	b.refused(Illegal, resume())
	b.refused(Illegal, stop(false))
}

func TestStopAndResume(t *testing.T) {
	b := newBench(t)
	b.ok(grant(1, 1, 11, "a", "b"))
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Steps: steps(1, 5)}))
	b.ok(stop(false))
	b.phase(proto.Phase_STOPPING)
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Steps: steps(5, 6), Outcome: proto.Outcome_PAUSED, Checkpoint: &proto.Checkpoint{Step: 6, Sha256: sum(6)}}))
	b.phase(proto.Phase_STOPPED)
	res := b.ok(report(&proto.Report{Generation: 1, Node: "a", Steps: steps(6, 6), Outcome: proto.Outcome_PAUSED, Checkpoint: &proto.Checkpoint{Step: 6, Sha256: sum(6)}}))
	if !res.Stale || len(res.Run.Checkpoints[0].Nodes) != 2 {
		t.Errorf("a late PAUSED keeps its checkpoint: %v", res.Run)
	}
	b.refused(Illegal, grant(2, 7, 11, "a"))
	b.ok(resume())
	b.refused(Stale, grant(1, 7, 11, "a", "b"))
	b.ok(grant(2, 7, 11, "b"))
	if r := b.phase(proto.Phase_RUNNING); r.Recoveries != 1 || r.Step != 6 {
		t.Errorf("resumed as %v", r)
	}
}

func TestDivergenceFailsTheRun(t *testing.T) {
	wrong := steps(1, 3)
	wrong[2].Digest++
	cases := map[string]*proto.Report{
		"digest":     {Generation: 1, Node: "b", Steps: wrong},
		"checkpoint": {Generation: 1, Node: "b", Checkpoint: &proto.Checkpoint{Step: 3, Sha256: sum(4)}},
	}
	for name, p := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.ok(grant(1, 1, 11, "a", "b"))
			b.ok(report(&proto.Report{Generation: 1, Node: "a", Steps: steps(1, 3), Checkpoint: &proto.Checkpoint{Step: 3, Sha256: sum(3)}}))
			b.ok(report(p))
			r := b.phase(proto.Phase_FAILED)
			if !strings.Contains(r.Reason, "node a has") || !strings.Contains(r.Reason, "node b has") {
				t.Errorf("reason %q does not name both nodes", r.Reason)
			}
		})
	}
}

func TestDivergentAdapter(t *testing.T) {
	b := newBench(t)
	b.ok(grant(1, 1, 11, "a", "b"))
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Steps: steps(1, 10), Outcome: proto.Outcome_FINISHED, AdapterSha256: sum(9)}))
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Outcome: proto.Outcome_FINISHED, AdapterSha256: sum(8)}))
	b.phase(proto.Phase_FAILED)
}

func TestStaleGenerationAddsNothing(t *testing.T) {
	b := newBench(t)
	b.ok(grant(1, 1, 11, "a", "b"))
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Steps: steps(1, 2)}))
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Outcome: proto.Outcome_ABORTED, Suspect: "b"}))
	b.refused(Stale, grant(1, 1, 11, "a", "b"))
	b.ok(grant(2, 3, 11, "a"))
	res := b.ok(report(&proto.Report{Generation: 1, Node: "b", Steps: steps(2, 4), Outcome: proto.Outcome_BROKEN, Checkpoint: &proto.Checkpoint{Step: 2, Sha256: sum(2)}}))
	r := b.phase(proto.Phase_RUNNING)
	if !res.Stale || r.Step != 2 || len(r.Checkpoints) != 1 {
		t.Errorf("a stale report led to step %d, checkpoints %v", r.Step, r.Checkpoints)
	}
	b.refused(Invalid, report(&proto.Report{Generation: 2, Node: "b"}))
	b.refused(Invalid, report(&proto.Report{Generation: 3, Node: "a"}))
	wrong := steps(2, 2)
	wrong[0].Loss = 5
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Steps: wrong}))
	b.phase(proto.Phase_FAILED)
}

// A step that says that the run ends with it is the last, though the plan has more; who says otherwise has diverged.
func TestEndedEarly(t *testing.T) {
	b := newBench(t)
	b.ok(grant(1, 1, 11, "a", "b"))
	end := steps(1, 6)
	end[5].EvalLoss, end[5].Last = 2.5, true
	b.refused(Invalid, report(&proto.Report{Generation: 1, Node: "b", Steps: append(end[:6:6], steps(7, 7)...)}))
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Steps: end, Checkpoint: &proto.Checkpoint{Step: 6, Sha256: sum(6)}}))
	b.refused(Invalid, report(&proto.Report{Generation: 1, Node: "b", Steps: steps(7, 7)}))
	if r := b.phase(proto.Phase_RUNNING); r.Ended != 6 || r.LastStep() != 6 {
		t.Errorf("the run ends with step %d", r.LastStep())
	}
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Outcome: proto.Outcome_ABORTED}))
	b.ok(grant(2, 7, 11, "a")) // the home node has still to write the output
	b.ok(report(&proto.Report{Generation: 2, Node: "a", Outcome: proto.Outcome_FINISHED, AdapterSha256: sum(9), Detail: "stopped early"}))
	if r := b.phase(proto.Phase_DONE); r.Reason != "stopped early" || r.Step != 6 {
		t.Errorf("%s at step %d: %s", r.Phase, r.Step, r.Reason)
	}
	other := steps(6, 6)
	other[0].EvalLoss = 2.5
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Steps: other}))
	if r := b.m.Run("r"); !strings.Contains(r.Reason, "diverged at step 6") {
		t.Errorf("somebody who would have gone on was not noticed: %s", r.Reason)
	}
}

func TestTroubleCountsFruitlessGenerations(t *testing.T) {
	b := newBench(t)
	for gen := uint64(1); gen <= 3; gen++ {
		b.ok(grant(gen, 1, 11, "a", "b"))
		b.ok(report(&proto.Report{Generation: gen, Node: "a", Outcome: proto.Outcome_ABORTED, Suspect: "b"}))
		b.ok(report(&proto.Report{Generation: gen, Node: "b", Outcome: proto.Outcome_ABORTED, Suspect: "a"}))
		if tr := b.m.Run("r").Trouble; tr.InARow != uint32(gen) || tr.Suspect != "b" {
			t.Fatalf("after %d aborts: %v", gen, tr)
		}
	}
	b.ok(grant(4, 1, 11, "a", "b"))
	b.ok(report(&proto.Report{Generation: 4, Node: "a", Steps: steps(1, 1), Outcome: proto.Outcome_ABORTED}))
	if tr := b.m.Run("r").Trouble; tr.InARow != 1 {
		t.Errorf("a generation that did a step counts as fruitless: %v", tr)
	}
}

func TestBrokenAndSettled(t *testing.T) {
	b := newBench(t)
	b.ok(grant(1, 1, 11, "a"))
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Outcome: proto.Outcome_BROKEN, Detail: "disk full"}))
	if r := b.phase(proto.Phase_FAILED); r.Reason != "node a: disk full" {
		t.Error(r.Reason)
	}
	b.ok(resume())
	b.ok(grant(2, 1, 11, "a"))
	b.ok(stop(false))
	b.ok(stop(false))
	b.phase(proto.Phase_STOPPING)
	b.ok(stop(true))
	b.phase(proto.Phase_STOPPED)
}

func TestSubmitTwiceIsOneRun(t *testing.T) {
	b := newBench(t)
	if res := b.ok(submit("r", 99, "b")); !res.Existed || res.Run.Spec.Steps != 10 {
		t.Errorf("got %v", res)
	}
	b.refused(Unknown, submit("s", 5, "nobody"))
	b.refused(Invalid, submit("s", 0, "a"))
}

func TestRemovedNodeStaysOut(t *testing.T) {
	b := newBench(t)
	b.ok(putToken("t", 1, 5000))
	b.ok(&proto.Command{Do: &proto.Command_RemoveNode{RemoveNode: &proto.RemoveNode{Id: "b"}}})
	b.refused(Illegal, putNode("b", "host"))
	b.refused(Illegal, useToken("t", 1, "b", 1))
}

func TestNamesAreUniqueAndStay(t *testing.T) {
	b := newBench(t)
	for id, want := range map[string]string{"a": "host", "b": "host-2"} {
		if n := b.ok(putNode(id, "host")).Node; n.Name != want {
			t.Errorf("node %s is called %q, want %q", id, n.Name, want)
		}
	}
}

func TestFindRun(t *testing.T) {
	b := newBench(t)
	b.ok(submit("abc1", 1, "a"))
	b.ok(submit("abc2", 1, "a"))
	for name, want := range map[string]string{"r": "r", "abc1": "abc1", "abc2": "abc2", "n-r": "r"} {
		if r, err := b.m.FindRun(name); err != nil || r.Spec.Run != want {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	for name, want := range map[string]Kind{"abc": Ambiguous, "z": Unknown, "": Unknown} {
		if _, err := b.m.FindRun(name); err == nil || err.(*Error).Kind != want {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
}

func TestViewsStayAsTheyWere(t *testing.T) {
	b := newBench(t)
	b.ok(grant(1, 1, 11, "a", "b"))
	b.ok(report(&proto.Report{Generation: 1, Node: "a", Steps: steps(1, 3), Checkpoint: &proto.Checkpoint{Step: 3, Sha256: sum(3)}}))
	old := b.m.Run("r")
	was := fmt.Sprint(old)
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Steps: steps(1, 9), Checkpoint: &proto.Checkpoint{Step: 3, Sha256: sum(3)}}))
	b.ok(stop(false))
	if fmt.Sprint(old) != was {
		t.Errorf("a view changed under its reader:\n%s\n%s", was, old)
	}
}

func TestRestoreRefusesWhatItDoesNotKnow(t *testing.T) {
	b := newBench(t)
	before, _ := b.m.Hash()
	for name, bad := range map[string][]byte{"newer": {8, 2}, "rubbish": {0xff, 1, 2}, "empty": {}} {
		if err := b.m.Restore(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if after, _ := b.m.Hash(); after != before {
		t.Error("a refused snapshot changed the state")
	}
}

// TestNamesThatBecomeFiles: the id of a run and the names of its inputs are names of files on every node.
func TestNamesThatBecomeFiles(t *testing.T) {
	b := newBench(t)
	named := func(run, file string) *proto.Command {
		c := submit(run, 10, "a")
		c.GetSubmitRun().Spec.Files = []*proto.File{{Name: file, Sha256: sum(1)}}
		return c
	}
	b.ok(named("job-12ab", "base/model-00001-of-00002.safetensors"))
	for _, bad := range []string{"..", ".", "../x", "/etc/passwd", "a/../../b", "a//b", `a\b`, "c:d", "a/", "\xff"} {
		b.refused(Invalid, named(bad, "data/0.jsonl"))
		b.refused(Invalid, named("job-"+fmt.Sprint(len(bad)), bad))
	}
	b.refused(Invalid, named("a/b", "data/0.jsonl"))
}
