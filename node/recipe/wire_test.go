package recipe_test

import (
	"math"
	"sync"
	"testing"

	"lorad/allreduce"
	"lorad/engine"
	"lorad/node/recipe"
	"lorad/node/replica"
	"lorad/node/tally"
)

// pair is two members of one run in this process, who compute every other micro-batch each.
type pair struct {
	recipe   *recipe.Recipe
	trainers [2]engine.Trainer
	replicas [2]*replica.Replica
	groups   [2]*allreduce.Group
	tallies  [2]*tally.Tally
	sums     [2]allreduce.Sum
	units    []int8
	grad     []float32
	sent     int64
	only     bool // the first one computes all
}

func newPair(tb testing.TB, r *recipe.Recipe, coarse bool) *pair {
	return pairOf(tb, r, coarse, [2]engine.Trainer{must(r.Trainer(1))(tb), must(r.Trainer(1))(tb)})
}

func pairOf(tb testing.TB, r *recipe.Recipe, coarse bool, trainers [2]engine.Trainer) *pair {
	p, links := &pair{recipe: r}, [2]allreduce.Links{make(allreduce.Links, 2), make(allreduce.Links, 2)}
	links[0][1], links[1][0] = allreduce.Pipe()
	for i := range 2 {
		p.trainers[i] = trainers[i]
		p.replicas[i] = replica.New(p.trainers[i], r.Rule())
		p.grad = make([]float32, len(p.trainers[i].Params()))
		p.tallies[i] = tally.New(r.MaxMicros(), -40, 2, p.trainers[i])
		p.groups[i] = must(allreduce.NewGroup(allreduce.Config{Rank: i, Members: []string{"a", "b"}}, links[i]))(tb)
	}
	if coarse {
		p.units = make([]int8, len(p.grad))
	}
	return p
}

// step makes one step and returns its loss.
func (p *pair) step(tb testing.TB) float64 {
	done := p.replicas[0].Done()
	for i := range 2 {
		if p.units != nil {
			p.replicas[i].Units(p.units, 12, -40)
		}
		p.tallies[i].Reset(p.recipe.Micros(done), p.units)
	}
	for i := range p.recipe.Micros(done) {
		b := p.recipe.Micro(done, i)
		by := i % 2
		if p.only {
			by = 0
		}
		g := must(tally.Compute(p.trainers[by], b, 1/float32(p.recipe.Labelled(done)), engine.Key{Step: uint32(done), Micro: uint32(i)}, p.grad))(tb)
		if err := p.tallies[by].Add(i, g, int64(b.Labelled()), int64(len(b.Tokens))); err != nil {
			tb.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			st, err := p.tallies[i].Reduce(tb.Context(), p.groups[i], allreduce.OpID{Step: done}, &p.sums[i])
			if err != nil {
				tb.Error(err)
			}
			if i == 0 {
				p.sent += st.Sent
			}
			p.replicas[i].Step(p.sums[i].Grad)
		})
	}
	wg.Wait()
	if p.replicas[0].Digest() != p.replicas[1].Digest() {
		tb.Fatalf("the replicas differ after step %d", done+1)
	}
	return p.sums[0].Loss / float64(p.sums[0].Tokens)
}

func (p *pair) close() {
	for _, g := range p.groups {
		go g.Close()
	}
}

// BenchmarkWire trains the embedded job between two members over the exact and the int16 wire. It reports the bytes per parameter that a sum
// takes, both phases (in f32 it would be 8), and how far the losses of the two come apart.
func BenchmarkWire(b *testing.B) {
	r := load(b)
	for b.Loop() {
		exact, coarse := newPair(b, r, false), newPair(b, r, true)
		var apart, last float64
		for range r.Plan.Steps() {
			x, y := exact.step(b), coarse.step(b)
			apart, last = max(apart, math.Abs(x-y)/x), x
		}
		perParam := float64(r.Plan.Steps()*len(exact.grad)) / 2
		b.ReportMetric(float64(exact.sent)/perParam, "exact-B/param")
		b.ReportMetric(float64(coarse.sent)/perParam, "int16-B/param")
		b.ReportMetric(apart, "apart")
		b.ReportMetric(last, "loss")
		exact.close()
		coarse.close()
	}
}
