// Command reducebench times the all-reduce between network namespaces, in turns with Gloo on the same tensors:
//
//	go build -o /tmp/reducebench ./scripts/reducebench
//	/tmp/reducebench -nodes 2,3,4,5 -params 12600000,50000000 -rate 1gbit -python .venv/bin/python
//
// It needs root and iproute2. -rate "" leaves the cables as fast as the machine; -slow gives the last node another one, which the members
// find out after a few sums. Without -python there is no Gloo.
// For each number of nodes and parameters it prints the median time of a whole sum over mutual TLS and plain TCP, and of
// Gloo's, and beside it
//
//	cpu    seconds of processor time that the busiest member took
//	wire   bytes on the busiest cable, headers included, over time, relative to its rate
//	f32    2(N-1)/N * 4 bytes per parameter over time, relative to the rate: the bandwidth that a sum in f32 would have needed
//	B/par  bytes per parameter and round trip: 8 is a sum in f32
//	ratio  Gloo's time over this one's
//
// The tensors are normal with a deviation of 1e-4, one micro-batch for each node.
package main

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lorad/ca"
	"lorad/internal/netlab"
)

type options struct {
	nodes, params []int
	rate, slow    string
	python        string
	rounds        int
	dir           string
	variants      []string
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "member" {
		member()
		return
	}
	var o options
	nodes := flag.String("nodes", "2,3,4,5", "numbers of nodes")
	params := flag.String("params", "12600000,50000000", "numbers of parameters")
	flag.StringVar(&o.rate, "rate", "1gbit", "rate of the cables, as tc takes it")
	flag.StringVar(&o.slow, "slow", "", "rate of the last node's cable, if another")
	flag.StringVar(&o.python, "python", "", "a Python with torch")
	flag.IntVar(&o.rounds, "rounds", 5, "measured rounds")
	variants := flag.String("variants", "tls,plain", "tls; plain: without TLS; int16: over TLS, rounded as with reduce_wire: int16")
	flag.Parse()
	o.nodes, o.params, o.variants = numbers(*nodes), numbers(*params), strings.Split(*variants, ",")
	if o.python != "" {
		o.variants = append(o.variants, "gloo")
	}
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func numbers(list string) (out []int) {
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "%q is not a list of numbers\n", list)
			os.Exit(2)
		}
		out = append(out, n)
	}
	return out
}

func (o *options) run() error {
	if why := netlab.Missing(); why != "" {
		return fmt.Errorf("all-reduce benchmark: %s", why)
	}
	var err error
	if o.dir, err = os.MkdirTemp("", "reducebench"); err != nil {
		return err
	}
	defer os.RemoveAll(o.dir)
	if err := o.prepare(slices.Max(o.nodes), slices.Max(o.params)); err != nil {
		return err
	}
	fmt.Printf("%5s %9s %-12s %8s %6s %6s %6s %6s %6s\n", "nodes", "params", "", "seconds", "cpu", "wire", "f32", "B/par", "ratio")
	for _, params := range o.params {
		for _, n := range o.nodes {
			if err := o.measure(n, params); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare writes each node's tensor and identity.
func (o *options) prepare(nodes, params int) error {
	authority, err := ca.New(ca.NewClusterID())
	if err != nil {
		return err
	}
	for i := range nodes {
		id, err := authority.Issue(ca.Subject{ClusterID: authority.ClusterID(), NodeID: nodeID(i), Role: ca.Worker})
		if err != nil {
			return err
		}
		dir := filepath.Join(o.dir, nodeID(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := id.Save(dir); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "tensor"), tensor(uint64(i), params), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func nodeID(i int) string { return fmt.Sprintf("n%d", i) }

// tensor is a gradient in little-endian f32.
func tensor(seed uint64, params int) []byte {
	rng, b := rand.New(rand.NewPCG(seed, 1)), make([]byte, 0, 4*params)
	for range params {
		b = appendFloat(b, float32(rng.NormFloat64()*1e-4))
	}
	return b
}

// measure runs all variants by turns in one lab and prints their lines.
func (o *options) measure(n, params int) error {
	lab, err := netlab.New(n, o.rate)
	if err != nil {
		return err
	}
	defer lab.Close()
	if o.slow != "" {
		if err := lab.Shape(n-1, o.slow); err != nil {
			return err
		}
	}
	teams := map[string]*team{}
	for _, v := range o.variants {
		t, err := o.start(lab, v, n, params)
		if err != nil {
			return err
		}
		defer t.stop()
		teams[v] = t
	}
	for round := range o.rounds + 1 {
		for _, v := range o.variants {
			if err := teams[v].round(lab, round > 0); err != nil {
				return fmt.Errorf("%s: %w", v, err)
			}
		}
	}
	for _, v := range o.variants {
		for _, way := range slices.Sorted(maps.Keys(teams[v].rounds)) {
			o.line(v+" "+way, n, params, teams[v].rounds[way], teams["gloo"])
		}
	}
	return nil
}

// line prints what came of a variant, beside Gloo's.
func (o *options) line(variant string, n, params int, r *rounds, gloo *team) {
	s := median(r.seconds)
	busiest := median(r.wire)
	fmt.Printf("%5d %9d %-12s %8.3f %6.3f", n, params, variant, s, median(r.cpu))
	if bits := bitsPerSecond(o.rate); bits > 0 {
		trips := 2 * float64(n-1) / float64(n)
		f32 := trips * 32 * float64(params) / s / bits
		fmt.Printf(" %5.1f%% %5.1f%% %6.2f", 100*busiest*8/s/bits, 100*f32, 2*busiest/float64(params)/trips)
	} else {
		fmt.Printf(" %6s %6s %6s", "", "", "")
	}
	if gloo != nil {
		fmt.Printf(" %6.2f", median(gloo.rounds["gloo"].seconds)/s)
	}
	fmt.Println()
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// bitsPerSecond reads the rates that are of use here: 100mbit, 1gbit, 2.5gbit.
func bitsPerSecond(rate string) float64 {
	for unit, f := range map[string]float64{"kbit": 1e3, "mbit": 1e6, "gbit": 1e9} {
		if s, ok := strings.CutSuffix(rate, unit); ok {
			x, _ := strconv.ParseFloat(s, 64)
			return x * f
		}
	}
	return 0
}
