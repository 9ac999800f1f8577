package sim

import (
	"flag"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	lives  = flag.Int("sim.seeds", 0, "lives to simulate; 0 = as many as -sim.steps takes")
	steps  = flag.Uint64("sim.steps", 100_000, "committed steps to simulate, at least")
	first  = flag.Uint64("sim.from", 1, "the first seed")
	only   = flag.Uint64("sim.seed", 0, "replay this seed alone, with its whole trace")
	rare   = flag.Bool("sim.rare", false, "look for the rare mutations as well: it takes minutes")
	traces = flag.String("sim.trace", "", "file for the trace of -sim.seed")
)

const regressions = "testdata/regressions.txt"

// live simulates one seed and fails the test with the end of its trace if an invariant broke.
func live(t *testing.T, cfg Config) Outcome {
	t.Helper()
	out := Live(cfg)
	if out.Violation != "" {
		t.Errorf("seed %d, %d nodes, after %.3f s and %d events: %s\nthe last events:\n%s\nreplay: go test ./internal/sim -run TestLives -sim.seed %d -sim.trace FILE; keep the seed in %s",
			out.Seed, out.Nodes, float64(out.Virtual)/float64(second), out.Events, out.Violation,
			strings.Join(out.Trace[max(0, len(out.Trace)-traceShown):], "\n"), out.Seed, regressions)
	}
	return out
}

const (
	traceShown = 60
	failsShown = 3
)

// tally adds lives up.
type tally struct {
	Outcome
	lives, failed int
}

func (a *tally) add(o Outcome) {
	a.lives++
	if o.Violation != "" {
		a.failed++
	}
	a.Committed, a.Made, a.Events, a.Virtual = a.Committed+o.Committed, a.Made+o.Made, a.Events+o.Events, a.Virtual+o.Virtual
	a.Sums, a.Lost, a.Grants, a.Snapshots = a.Sums+o.Sums, a.Lost+o.Lost, a.Grants+o.Grants, a.Snapshots+o.Snapshots
	a.Yields += o.Yields
	if a.Faults == nil {
		a.Faults = map[string]int{}
	}
	for k, n := range o.Faults {
		a.Faults[k] += n
	}
}

func (a *tally) log(t *testing.T) {
	t.Logf("%d lives, %d failed: %d steps committed (%d made by members), %d events, %.1f h of virtual time, %d generations (%d left between two steps), %d replicas restored from a snapshot, %d sums that only some members got",
		a.lives, a.failed, a.Committed, a.Made, a.Events, float64(a.Virtual)/float64(3600*second), a.Grants, a.Yields, a.Snapshots, a.Lost)
	for _, k := range slices.Sorted(maps.Keys(a.Faults)) {
		t.Logf("%8d x %s", a.Faults[k], k)
	}
}

// TestLives simulates the same lives every time, 100,000 steps of them, or as many as the flags say.
func TestLives(t *testing.T) {
	if *only != 0 {
		replay(t)
		return
	}
	var all tally
	for seed := *first; all.lives < *lives || *lives == 0 && all.Committed < *steps; seed++ {
		all.add(live(t, Config{Seed: seed}))
		if all.failed == failsShown {
			t.Fatal("enough")
		}
	}
	all.log(t)
}

func replay(t *testing.T) {
	out := Live(Config{Seed: *only, Whole: true})
	if *traces != "" {
		if err := os.WriteFile(*traces, []byte(strings.Join(out.Trace, "\n")+"\n"+out.Violation+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out.Violation != "" {
		t.Error(out.Violation)
	}
}

// TestFreshLives simulates lives that nobody has seen before.
func TestFreshLives(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seeds %d to %d", seed, seed+9)
	for i := range uint64(10) {
		live(t, Config{Seed: seed + i})
	}
}

// TestRegressions simulates the lives that once went wrong.
func TestRegressions(t *testing.T) {
	text, err := os.ReadFile(regressions)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		field, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if field == "" || field[0] == '#' {
			continue
		}
		seed, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			t.Fatalf("%s: %q: a line is a seed and what went wrong with it", regressions, line)
		}
		live(t, Config{Seed: seed, Roomy: true})
		n++
	}
	if n == 0 {
		t.Errorf("%s: no seeds", regressions)
	}
}

// TestCalm: without faults no member makes a step twice, and nobody gives a generation up.
func TestCalm(t *testing.T) {
	for seed := range uint64(40) {
		out := live(t, Config{Seed: seed + 1, Calm: true})
		if out.Made > out.Committed*uint64(out.Nodes) || out.Aborts != 0 {
			t.Errorf("seed %d: %d steps made for %d by %d nodes, %d generations given up", out.Seed, out.Made, out.Committed, out.Nodes, out.Aborts)
		}
	}
}

// TestDrainsCostNothing: however often nodes hand their work over and take it up again, no gradient is computed twice.
func TestDrainsCostNothing(t *testing.T) {
	var all tally
	for seed := range uint64(40) {
		out := live(t, Config{Seed: seed + 1, Drain: true})
		if out.Computed != out.Owed {
			t.Errorf("seed %d: %d gradients for %d micro-batches", out.Seed, out.Computed, out.Owed)
		}
		all.Yields += out.Yields
	}
	if all.Yields < 40 {
		t.Errorf("nodes left %d times only", all.Yields)
	}
}

// TestSameSeedSameLife: a seed is worth keeping only if it always says the same.
func TestSameSeedSameLife(t *testing.T) {
	for seed := range uint64(5) {
		a, b := Live(Config{Seed: seed + 1, Whole: true}), Live(Config{Seed: seed + 1, Whole: true})
		if a.Events != b.Events || a.Virtual != b.Virtual || !slices.Equal(a.Trace, b.Trace) {
			t.Errorf("seed %d: two lives differ", seed+1)
		}
	}
}

// TestBugsAreCaught: a simulator that finds nothing is worth nothing. Every mutation of the shell breaks an invariant
// within some lives. The search begins at a seed that is known to show it, which saves time and no more.
func TestBugsAreCaught(t *testing.T) {
	known := map[Bug]uint64{NoRecords: 153}
	bugs := Bugs
	if *rare {
		bugs = append(slices.Clone(bugs), RareBugs...)
	}
	for _, bug := range bugs {
		t.Run(strings.ReplaceAll(string(bug), " ", "_"), func(t *testing.T) {
			from := max(1, known[bug])
			for seed := from; seed < from+bugPatience; seed++ {
				if out := Live(Config{Seed: seed, Bug: bug, Roomy: bug != AcksUnsaved}); out.Violation != "" {
					what, _, _ := strings.Cut(out.Violation, "\n")
					t.Logf("seed %d: %s", seed, what)
					return
				}
			}
			t.Errorf("not noticed in %d lives", bugPatience)
		})
	}
}

const bugPatience = 2000
