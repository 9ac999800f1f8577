package chaos

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestScheduleIsAFunctionOfTheSeed(t *testing.T) {
	s := Spec{Seed: 7, Kinds: []Kind{Kill, Stop, Leader, Restart, Outage}, Count: 20, Nodes: 3, Steps: 282}
	a, err := Schedule(s)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := Schedule(s); !reflect.DeepEqual(a, b) {
		t.Error("the same seed gives other faults")
	}
	s.Seed++
	if b, _ := Schedule(s); reflect.DeepEqual(a, b) {
		t.Error("another seed gives the same faults")
	}
	// The schedule of a seed is what people report: it must not change from version to version.
	want := Fault{Kind: Restart, Node: 1, Step: 6, Wait: 241 * time.Millisecond, Down: 891 * time.Millisecond}
	if a[0] != want {
		t.Errorf("the first fault of seed 7 is %+v, was %+v", a[0], want)
	}
}

func TestScheduleFitsTheRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Spec{
			Seed: rapid.Uint64().Draw(t, "seed"), Kinds: Kinds()[:rapid.IntRange(1, len(Kinds())).Draw(t, "kinds")],
			Count: rapid.IntRange(1, 50).Draw(t, "count"), Nodes: rapid.IntRange(3, 9).Draw(t, "nodes"),
		}
		s.Steps = uint64(2*s.Count + rapid.IntRange(0, 1000).Draw(t, "more"))
		faults, err := Schedule(s)
		if err != nil {
			t.Fatal(err)
		}
		var before uint64
		dealt := map[Kind]int{}
		for _, f := range faults {
			if f.Step < before || f.Step*10 >= s.Steps*9 || f.Node < 0 || f.Node >= s.Nodes || f.Down <= 0 {
				t.Fatalf("%+v after step %d of %d", f, before, s.Steps)
			}
			before = f.Step
			dealt[f.Kind]++
		}
		for _, k := range s.Kinds {
			if n := dealt[k]; n < s.Count/len(s.Kinds) || n > s.Count/len(s.Kinds)+1 {
				t.Fatalf("%d of %d faults are %s", n, s.Count, k)
			}
		}
	})
}

func TestScheduleRefuses(t *testing.T) {
	good := Spec{Kinds: Kinds(), Count: 5, Nodes: 3, Steps: 100}
	for want, spoil := range map[string]func(*Spec){
		"faults: none":          func(s *Spec) { s.Kinds = nil },
		`"flood" is not one of`: func(s *Spec) { s.Kinds = []Kind{"flood"} },
		"count: 0":              func(s *Spec) { s.Count = 0 },
		"nodes: 2":              func(s *Spec) { s.Nodes = 2 },
		"too few for 5 faults":  func(s *Spec) { s.Steps = 9 },
	} {
		s := good
		spoil(&s)
		if _, err := Schedule(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
}

func TestJudge(t *testing.T) {
	good := Seen{Planned: 3, Faults: 3, SHA256: "ab", Clean: "ab"}
	if wrong := Judge(good); wrong != nil {
		t.Errorf("all is well, but %q", wrong)
	}
	for name, spoil := range map[string]func(*Seen){
		"too few faults": func(s *Seen) { s.Faults = 2 },
		"stuck":          func(s *Seen) { s.Unrecovered = 1 },
		"minority":       func(s *Seen) { s.MinorityCommits = 1 },
		"checkpoints":    func(s *Seen) { s.LostSaved = 1 },
		"other moments":  func(s *Seen) { s.State, s.CleanState = "ab", "cd" },
		"lost":           func(s *Seen) { s.LostSteps = 1 },
		"diverged":       func(s *Seen) { s.DivergedSteps = 1 },
		"missing":        func(s *Seen) { s.Missing = 1 },
		"doubled":        func(s *Seen) { s.Doubled = 1 },
		"audit":          func(s *Seen) { s.AuditFindings = []string{"x"} },
		"other bytes":    func(s *Seen) { s.SHA256 = "cd" },
		"no bytes":       func(s *Seen) { s.SHA256, s.Clean = "", "" },
		"a node died":    func(s *Seen) { s.Deaths = []string{"x"} },
		"the run failed": func(s *Seen) { s.Failure = "x" },
	} {
		s := good
		spoil(&s)
		if wrong := Judge(s); len(wrong) != 1 {
			t.Errorf("%s: %q", name, wrong)
		}
	}
}

func TestQuantile(t *testing.T) {
	var d []time.Duration
	for i := range 20 {
		d = append(d, time.Duration(20-i))
	}
	for q, want := range map[float64]time.Duration{0.5: 10, 0.99: 20, 1: 20, 0.05: 1} {
		if got := Quantile(d, q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	if Quantile(nil, 0.5) != 0 {
		t.Error("quantile of nothing")
	}
}

// A run that makes 100 tokens a second, and none for a while after each fault.
func TestGoodput(t *testing.T) {
	began := time.Unix(1_000, 0)
	every := 30 * time.Second
	faults := []time.Time{began.Add(every), began.Add(2 * every)}
	for pause, want := range map[time.Duration]float64{0: 1, 3 * time.Second: 0.9, 6 * time.Second: 0.8} {
		var samples []Sample
		for at := time.Duration(0); at < 3*every; at += 100 * time.Millisecond {
			if at < every || at%every >= pause {
				samples = append(samples, Sample{began.Add(at), 10})
			}
		}
		if got := Goodput(samples, faults, every); got < want-0.01 || got > want+0.01 {
			t.Errorf("pauses of %s: goodput %.3f, want %.2f", pause, got, want)
		}
	}
	if Goodput(nil, faults, every) != 0 || Goodput(nil, faults, 0) != 0 {
		t.Error("goodput of nothing")
	}
}

func TestSeries(t *testing.T) {
	for _, s := range AllSeries() {
		spec := Spec{Seed: 1, Kinds: s.Kinds, Count: s.Count, Nodes: s.Nodes, Steps: uint64(s.Steps), Brief: true}
		if _, err := Schedule(spec); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		if got, err := SeriesNamed(s.Name); err != nil || got.Name != s.Name {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	if _, err := SeriesNamed("flood"); err == nil {
		t.Error("want an error")
	}
}
