package allreduce

import (
	"context"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// micro is what one micro-batch contributes.
type micro struct {
	g             []float32
	loss          float64
	tokens, total int64
}

// randomMicros draws micro-batches whose gradients span many magnitudes, zeros included.
func randomMicros(seed uint64, params, micros int) []micro {
	rng := rand.New(rand.NewPCG(seed, 1))
	ms := make([]micro, micros)
	for m := range ms {
		g := make([]float32, params)
		for i := range g {
			if rng.IntN(8) > 0 {
				g[i] = float32(rng.NormFloat64() * math.Exp(rng.Float64()*30-28))
			}
		}
		n := rng.Int64N(5000)
		ms[m] = micro{g, rng.Float64() * 9 * float64(n), n, n + rng.Int64N(1000)}
	}
	return ms
}

// bigSum is the oracle: every value is brought to a multiple of the unit in exact arithmetic and summed.
func bigSum(ms []micro, unitLog2 int) (grad []float32, loss float64) {
	unit := new(big.Float).SetMantExp(big.NewFloat(1), unitLog2)
	grad = make([]float32, len(ms[0].g))
	for i := range grad {
		sum := new(big.Int)
		for _, m := range ms {
			sum.Add(sum, nearest(float64(m.g[i]), unitLog2))
		}
		f := new(big.Float).SetPrec(256).SetInt(sum)
		grad[i], _ = f.Mul(f, unit).Float32()
	}
	sum := new(big.Int)
	for _, m := range ms {
		sum.Add(sum, nearest(m.loss, -30))
	}
	f := new(big.Float).SetPrec(256).SetInt(sum)
	loss, _ = f.SetMantExp(f, -30).Float64()
	return grad, loss
}

// nearest is x / 2^unitLog2 rounded to the nearest integer, ties to even, by exact integer division.
func nearest(x float64, unitLog2 int) *big.Int {
	r, _ := new(big.Float).SetPrec(64).SetMantExp(new(big.Float).SetPrec(64).SetFloat64(x), -unitLog2).Rat(nil)
	num, den := new(big.Int).Lsh(r.Num(), 1), r.Denom() // floor((2*num + den) / (2*den)) rounds half up
	num.Add(num, den)
	q, rem := new(big.Int).DivMod(num, new(big.Int).Lsh(den, 1), new(big.Int))
	if rem.Sign() == 0 && q.Bit(0) == 1 { // a tie that was rounded up to an odd number
		q.Sub(q, big.NewInt(1))
	}
	return q
}

// mesh connects n members in memory.
func mesh(n int) []Links {
	links := make([]Links, n)
	for r := range links {
		links[r] = make(Links, n)
	}
	for i := range n {
		for j := range i {
			links[i][j], links[j][i] = Pipe()
		}
	}
	return links
}

// groupOf builds a group of n members over in-memory links, each end passed through wrap; the caller closes them.
func groupOf(n int, wrap func(rank int, l Links) Links) []*Group {
	ids, links := memberIDs(n), mesh(n)
	groups := make([]*Group, n)
	for r := range groups {
		if wrap != nil {
			links[r] = wrap(r, links[r])
		}
		g, err := NewGroup(testConfig(r, ids), links[r])
		if err != nil {
			panic(err)
		}
		groups[r] = g
	}
	return groups
}

// ways are all schedules, and one of each kind of shares.
func ways(n int) map[string]func(int) (Way, []int64) {
	even, odd := make([]int64, n), make([]int64, n)
	for i := range n {
		even[i], odd[i] = 1, int64(i*i)
	}
	odd[0] = 1
	return map[string]func(int) (Way, []int64){
		"ring":     func(int) (Way, []int64) { return Ring, even },
		"direct":   func(int) (Way, []int64) { return Direct, even },
		"weighted": func(int) (Way, []int64) { return Direct, odd },
		"whole":    func(int) (Way, []int64) { return Whole, []int64{1} },
	}
}

// eachWay runs f on groups that go it.
func eachWay(t *testing.T, n int, wrap func(int, Links) Links, f func(t *testing.T, way string, groups []*Group)) {
	for name, decide := range ways(n) {
		t.Run(name, func(t *testing.T) {
			groups := groupOf(n, wrap)
			defer closeAll(groups)
			for _, g := range groups {
				g.decide = decide
			}
			f(t, name, groups)
		})
	}
}

func memberIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("n%d", i)
	}
	return ids
}

func testConfig(rank int, ids []string) Config {
	return Config{Run: 7, Generation: 3, Rank: rank, Members: ids, Silence: time.Minute, Heartbeat: 50 * time.Millisecond}
}

func testOp(step uint64) OpID { return OpID{Run: 7, Generation: 3, Step: step} }

// together runs f on every group at once.
func together(groups []*Group, f func(r int, g *Group)) {
	var wg sync.WaitGroup
	for r, g := range groups {
		wg.Go(func() { f(r, g) })
	}
	wg.Wait()
}

// reduceAll reduces accs over groups and returns every member's result.
func reduceAll(groups []*Group, op OpID, accs []*Accum) ([]Sum, []error) {
	sums, errs := make([]Sum, len(groups)), make([]error, len(groups))
	together(groups, func(r int, g *Group) {
		_, errs[r] = g.Reduce(context.Background(), op, accs[r], &sums[r])
	})
	return sums, errs
}
