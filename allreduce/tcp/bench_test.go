package tcp

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"lorad/allreduce"
)

// BenchmarkReduce measures whole steps over loopback, all members in this process and on its cores: N times the
// work of a node. GB/s is f32-equivalent bus bandwidth per member: 2(N-1)/N * 4 bytes * params / time.
func BenchmarkReduce(b *testing.B) {
	for _, params := range []int{0, 200_000, 12_600_000} {
		for n := 1; n <= 3; n++ {
			b.Run(fmt.Sprintf("params=%d/members=%d", params, n), func(b *testing.B) { benchReduce(b, params, newSite(b, n).connect(b, 1)) })
		}
	}
}

func benchReduce(b *testing.B, params int, groups []*allreduce.Group) {
	n := len(groups)
	accs, sums := make([]*allreduce.Accum, n), make([]allreduce.Sum, n)
	rng := rand.New(rand.NewPCG(1, 1))
	g := make([]float32, params)
	for r := range accs {
		for i := range g {
			g[i] = float32(rng.NormFloat64() * 1e-4)
		}
		accs[r] = allreduce.NewAccum(params, n, -40)
		if err := accs[r].Add(r, g, 1, 1, 1); err != nil {
			b.Fatal(err)
		}
	}
	var sent int64
	step := func(i uint64) {
		each(n, func(r int) {
			st, err := groups[r].Reduce(b.Context(), op(i), accs[r], &sums[r])
			if err != nil {
				b.Error(err)
			}
			if r == 0 {
				sent += st.Sent
			}
		})
	}
	step(0)
	sent = 0
	i := uint64(1)
	for b.Loop() {
		step(i)
		i++
	}
	perOp := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(float64(sent)/float64(b.N), "sentB/op")
	if n > 1 && params > 0 {
		bus := 2 * float64(n-1) / float64(n) * 4 * float64(params)
		b.ReportMetric(bus/float64(perOp.Nanoseconds()), "GB/s")
	}
}

// BenchmarkConnect measures building a ring of three, barrier included.
func BenchmarkConnect(b *testing.B) {
	s := newSite(b, 3)
	generation := uint64(0)
	for b.Loop() {
		generation++
		closeAll(s.connect(b, generation))
	}
}
