package sim

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var (
	seeds = flag.Int("sim.seeds", 100, "lives")
	one   = flag.Uint64("sim.seed", 0, "this life only")
	file  = flag.String("sim.trace", "", "write its whole trace here")
)

func TestLives(t *testing.T) {
	if *one != 0 {
		out := Live(Config{Seed: *one, Verse: true})
		os.WriteFile(*file, []byte(strings.Join(out.Trace, "\n")+"\n"+out.Violation), 0o644)
		t.Log(out.Violation)
		return
	}
	var steps, events uint64
	bad := 0
	for seed := range uint64(*seeds) {
		out := Live(Config{Seed: seed + 1})
		steps += out.Committed
		events += out.Events
		if out.Violation != "" {
			t.Errorf("seed %d (%d nodes): %s", out.Seed, out.Nodes, out.Violation)
			if bad++; bad > 10 {
				break
			}
		}
	}
	t.Logf("%d steps, %d events", steps, events)
}
