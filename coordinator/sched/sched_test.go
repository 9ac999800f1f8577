package sched

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"lorad/coordinator/state"
	"lorad/proto"
)

// TestDecisionsHoldAndSettle: whatever happens, the state accepts what the scheduler proposes, and once it is
// carried out there is nothing more to propose. A scheduler that never settles would fill the log by itself.
func TestDecisionsHoldAndSettle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: t, m: state.New(), live: map[string]Liveness{}, now: 1}
		for _, id := range []string{"a", "b", "c"} {
			w.do("", "node", []string{id, rapid.SampledFrom([]string{"v1", "v1", "v1", "v2"}).Draw(rt, "version")})
			w.do("", "alive", []string{id})
		}
		w.do("", "submit", []string{"r", "a", "300"})
		w.do("", "submit", []string{"s", "b", "100"})
		for range rapid.IntRange(1, 40).Draw(rt, "events") {
			w.anything(rt)
			w.settle(rt)
		}
	})
}

// anything lets one thing happen. A refusal by the state is fine here: reports may come at any time.
func (w *world) anything(t *rapid.T) {
	id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node")
	r := w.m.Run(rapid.SampledFrom([]string{"r", "s"}).Draw(t, "run"))
	verb := rapid.SampledFrom([]string{"wait", "alive", "dead", "unknown", "steps", "steps", "abort", "pause", "finish", "stop", "resume", "drain", "undrain", "yield", "ready", "ready", "unfit"}).Draw(t, "event")
	p := &proto.Report{Run: r.Spec.Run, Node: id, Generation: r.Lease.GetGeneration()}
	switch verb {
	case "wait":
		w.now += int64(rapid.SampledFrom([]int{1, 300, 2500, 40000}).Draw(t, "ms"))
		return
	case "alive", "dead", "unknown", "drain", "undrain":
		w.do("", verb, []string{id})
		return
	case "stop", "resume":
		w.try(map[string]*proto.Command{
			"stop":   {Do: &proto.Command_StopRun{StopRun: &proto.StopRun{Run: p.Run}}},
			"resume": {Do: &proto.Command_ResumeRun{ResumeRun: &proto.ResumeRun{Run: p.Run}}}}[verb])
		return
	case "steps":
		p.Steps = w.upTo(p.Run, min(r.Step+uint64(rapid.IntRange(1, 60).Draw(t, "n")), r.Lease.GetUntil()-1), uint64(rapid.IntRange(0, 3000).Draw(t, "ms")))
	case "abort":
		p.Outcome, p.Suspect = proto.Outcome_ABORTED, rapid.SampledFrom([]string{"a", "b", "c", ""}).Draw(t, "suspect")
	case "unfit":
		p.Outcome = proto.Outcome_UNFIT
	case "ready":
		p.Outcome = proto.Outcome_READY
	case "yield":
		p.Outcome = proto.Outcome_YIELDED
	case "pause":
		p.Outcome = proto.Outcome_PAUSED
	case "finish":
		p.Outcome, p.AdapterSha256 = proto.Outcome_FINISHED, make([]byte, 32)
	}
	w.try(&proto.Command{Do: &proto.Command_Report{Report: p}})
}

func (w *world) try(c *proto.Command) {
	c.NowUnixMs = w.now
	w.m.Apply(c)
}

// settle carries decisions out until there are none. A stop that frees the cluster may start the next run, so
// a few rounds are normal.
func (w *world) settle(t *rapid.T) {
	for range 4 {
		quiet := true
		for _, d := range Next(Look(w.m), w.live, w.now) {
			if d.Command == nil {
				continue
			}
			quiet = false
			d.Command.NowUnixMs = w.now
			if _, err := w.m.Apply(d.Command); err != nil {
				t.Fatalf("the state refuses %v: %v", d, err)
			}
			w.sane(t, d)
		}
		if quiet {
			return
		}
	}
	t.Fatalf("still deciding: %v", Next(Look(w.m), w.live, w.now))
}

// sane checks what every new generation must be.
func (w *world) sane(t *rapid.T, d Decision) {
	g := d.Command.GetGrantLease()
	if g == nil {
		return
	}
	for _, id := range g.Lease.Members {
		if l, known := w.live[id]; known && !l.Alive {
			t.Fatalf("%s leased to the dead node %s: %v", d.Run, id, d)
		}
	}
	if g.Lease.Until > w.m.Run(d.Run).Spec.Steps+1 || d.Reason == "" {
		t.Fatalf("odd lease %v", d)
	}
	working := 0
	for _, r := range w.m.Runs() {
		if occupant([]*proto.Run{r}) != "" {
			working++
		}
	}
	if working > 1 && g.Lease.Generation == 1 {
		t.Fatalf("%d runs have the cluster after %s", working, fmt.Sprint(d))
	}
}
