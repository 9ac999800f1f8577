package node

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lorad/engine"
	"lorad/node/step"
)

// greedy is a Trainer that needs a lot of memory and can halve that some times. It says so itself, as an accelerator
// does, or is asked before.
type greedy struct {
	engine.Trainer
	need, device int64
	halvings     int
	computed     int
}

func (g *greedy) Growth(engine.Batch) int64 { return g.need }

func (g *greedy) Leaner() bool {
	if g.halvings == 0 {
		return false
	}
	g.halvings--
	g.need /= 2
	return true
}

func (g *greedy) Gradient(engine.Batch, float32, engine.Key, []float32) (float64, error) {
	if g.need > g.device {
		return 0, fmt.Errorf("allocate activations: %d bytes: %w", g.need, engine.ErrOutOfMemory)
	}
	g.computed++
	return 1, nil
}

// plain is a Trainer that cannot do with less.
type plain struct{ *greedy }

func (plain) Growth() {}

func short(t engine.Trainer, left int64) *worker {
	n := &Node{cfg: Config{ID: "a", Log: slog.New(slog.DiscardHandler)}, free: func() int64 { return left }}
	return &worker{node: n, trainer: t, log: n.cfg.Log}
}

func TestShortOfMemory(t *testing.T) {
	const all = math.MaxInt64
	for name, c := range map[string]struct {
		device, left int64
		halvings     int
		lean         int
		fails        string
	}{
		"enough":                        {1000, all, 0, 0, ""},
		"the device says so":            {300, all, 5, 2, ""},
		"it is foreseen":                {all, 300, 5, 2, ""},
		"both":                          {100, 300, 5, 4, ""},
		"not even with the least":       {300, all, 1, 1, "allocate activations"},
		"foreseen, not with the least":  {all, 300, 1, 1, "MiB are left"},
		"foreseen, and nothing to save": {all, 300, 0, 0, "give this node more memory"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &greedy{need: 1000, device: c.device, halvings: c.halvings}
			w := short(g, c.left)
			_, err := w.gradient(task{scale: 1})
			if w.lean != c.lean {
				t.Errorf("it was made leaner %d times, want %d", w.lean, c.lean)
			}
			if c.fails == "" {
				if err != nil || g.computed != 1 {
					t.Errorf("computed %d times, %v", g.computed, err)
				}
				return
			}
			var unfit *unfitError
			if !errors.As(err, &unfit) || !errors.Is(err, engine.ErrOutOfMemory) || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An engine that cannot do with less, or another failure, is left as it is.
func TestOtherFailuresStay(t *testing.T) {
	w := short(plain{&greedy{need: 1000, device: 10, halvings: 3}}, math.MaxInt64)
	var unfit *unfitError
	if _, err := w.gradient(task{scale: 1}); !errors.As(err, &unfit) {
		t.Errorf("out of memory and not thrifty: %v", err)
	}
}

// The member drops out; the run goes on without it.
func TestUnableMemberDropsOut(t *testing.T) {
	plan := step.Plan{Steps: 3, Work: func(uint64) []int { return []int{1, 1} }}
	m := step.New("a", plan, 0)
	m.Handle(step.Leased{Lease: step.Lease{Generation: 1, Members: []string{"a", "b"}, Until: 9}})
	m.Handle(step.Connected{Generation: 1})
	m.Handle(step.Synced{Generation: 1, Positions: []step.Position{{}, {}}})
	out := m.Handle(step.Unable{Detail: "no room"})
	if len(out) != 2 || out[1] != (step.ReportUnable{Generation: 1, Detail: "no room"}) || !m.Over() {
		t.Errorf("%+v, over: %v", out, m.Over())
	}
}

// A process that the kernel ended is followed by one that takes less memory; one that was killed for other reasons, or
// ended in order, is not.
func TestAttemptAfterAnOOMKill(t *testing.T) {
	kills := int64(3)
	n := &Node{cfg: Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}, oomKills: func() (string, int64) { return "boot", kills }}
	begin := func(want int) *attempt {
		t.Helper()
		a, err := n.beginAttempt("r")
		if err != nil || a.Lean != want {
			t.Fatalf("begins %d times leaner, want %d (%v)", a.Lean, want, err)
		}
		return a
	}
	begin(0)
	begin(0) // SIGKILL
	kills++
	begin(1) // the kernel
	begin(1).note(2)
	kills++
	a := begin(3)
	a.end()
	kills++
	begin(0)
}

func TestMemoryOfAControlGroup(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func() int64 { return leftIn(dir, "memory.max", "memory.current", "inactive_file") }
	if left() != math.MaxInt64 {
		t.Errorf("%d bytes are left where there is no group", left())
	}
	write("memory.max", "max\n")
	write("memory.current", "700\n")
	if left() != math.MaxInt64 {
		t.Errorf("%d bytes are left without a limit", left())
	}
	write("memory.max", "1000\n")
	write("memory.stat", "anon 600\ninactive_file 50\n")
	if left() != 350 {
		t.Errorf("%d bytes are left of 1000, 700 of which are taken and 50 of these are cache", left())
	}
}

// What the system says of its memory can be read.
func TestFreeMemory(t *testing.T) {
	if n := free(); n <= 1<<20 || n > 1<<50 {
		t.Errorf("%d bytes are free", n)
	}
}
