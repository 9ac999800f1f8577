package sched

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lorad/coordinator/state"
	"lorad/proto"
)

var rewrite = flag.Bool("rewrite", false, "write what the scheduler decides into testdata, to be reviewed as a diff")

// TestScenarios plays testdata/*.txt. A line is an event, and `next` asks the scheduler and carries out what it
// says; the lines after it that begin with "->" are what it said.
func TestScenarios(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no scenarios")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Errorf("the scheduler says:\n%s", got)
			}
		})
	}
}

// world is a state, who is alive in it, and a clock.
type world struct {
	t    *testing.T
	m    *state.Machine
	live map[string]Liveness
	now  int64
	out  bytes.Buffer
}

func play(t *testing.T, script string) []byte {
	w := &world{t: t, m: state.New(), live: map[string]Liveness{}}
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "->") {
			continue
		}
		w.out.WriteString(line)
		if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
			w.do(line, f[0], f[1:])
		}
	}
	return w.out.Bytes()
}

func (w *world) do(line, verb string, a []string) {
	a = append(a, "", "", "", "")
	n := func(i int) uint64 { v, _ := strconv.ParseUint(a[i], 10, 64); return v }
	switch verb {
	case "wait":
		w.now += int64(n(0))
	case "node":
		w.apply(&proto.Command{Do: &proto.Command_PutNode{PutNode: &proto.PutNode{Node: &proto.Node{Id: a[0], Name: a[0], Addr: a[0], Version: a[1]}}}})
	case "forget":
		w.apply(&proto.Command{Do: &proto.Command_RemoveNode{RemoveNode: &proto.RemoveNode{Id: a[0]}}})
	case "alive", "dead":
		for _, id := range strings.Fields(strings.Join(a, " ")) {
			w.live[id] = Liveness{Alive: verb == "alive", Since: w.now}
		}
	case "unknown":
		delete(w.live, a[0])
	case "submit":
		w.apply(&proto.Command{Do: &proto.Command_SubmitRun{SubmitRun: &proto.SubmitRun{Spec: &proto.Spec{
			Run: a[0], HomeNode: a[1], Steps: n(2), MicroBatches: 4, SubmittedUnixMs: w.now}}}})
	case "stop":
		w.apply(&proto.Command{Do: &proto.Command_StopRun{StopRun: &proto.StopRun{Run: a[0]}}})
	case "resume":
		w.apply(&proto.Command{Do: &proto.Command_ResumeRun{ResumeRun: &proto.ResumeRun{Run: a[0]}}})
	case "steps": // RUN NODE LAST MS
		w.report(a[0], a[1], &proto.Report{Steps: w.upTo(a[0], n(2), n(3))})
	case "abort":
		w.report(a[0], a[1], &proto.Report{Outcome: proto.Outcome_ABORTED, Suspect: a[2]})
	case "unfit":
		w.report(a[0], a[1], &proto.Report{Outcome: proto.Outcome_UNFIT, Suspect: a[1], Detail: "out of memory"})
	case "ready":
		w.report(a[0], a[1], &proto.Report{Outcome: proto.Outcome_READY})
	case "drain", "undrain":
		w.apply(&proto.Command{Do: &proto.Command_DrainNode{DrainNode: &proto.DrainNode{Id: a[0], Drain: &proto.Drain{Reason: "it says so"}, Undo: verb == "undrain"}}})
	case "yield":
		w.report(a[0], a[1], &proto.Report{Outcome: proto.Outcome_YIELDED})
	case "pause":
		w.report(a[0], a[1], &proto.Report{Outcome: proto.Outcome_PAUSED})
	case "finish":
		w.report(a[0], a[1], &proto.Report{Outcome: proto.Outcome_FINISHED, AdapterSha256: make([]byte, 32)})
	case "next":
		w.next()
	default:
		w.t.Fatalf("no such event: %s", line)
	}
}

func (w *world) apply(c *proto.Command) {
	w.t.Helper()
	c.NowUnixMs = w.now
	if _, err := w.m.Apply(c); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) report(run, node string, p *proto.Report) {
	p.Run, p.Node, p.Generation = run, node, w.m.Run(run).Lease.Generation
	w.apply(&proto.Command{Do: &proto.Command_Report{Report: p}})
}

func (w *world) upTo(run string, last, ms uint64) []*proto.StepRecord {
	var s []*proto.StepRecord
	for i := w.m.Run(run).Step + 1; i <= last; i++ {
		s = append(s, &proto.StepRecord{Step: i, DurationUs: ms * 1000})
	}
	return s
}

// next carries out what the scheduler says and writes it down. Whatever it proposes must be acceptable.
func (w *world) next() {
	for _, d := range Next(Look(w.m), w.live, w.now) {
		fmt.Fprintf(&w.out, "-> %s: %s%s\n", d.Run, what(d.Command), d.Reason)
		if d.Command != nil {
			w.apply(d.Command)
		}
	}
}

func what(c *proto.Command) string {
	switch do := c.GetDo().(type) {
	case *proto.Command_GrantLease:
		l := do.GrantLease.Lease
		return fmt.Sprintf("lease %d [%s] steps [%d,%d): ", l.Generation, strings.Join(l.Members, " "), l.From, l.Until)
	case *proto.Command_StopRun:
		return "settle: "
	}
	return ""
}
