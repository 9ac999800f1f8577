package tally_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"lorad/allreduce"
	"lorad/engine"
	"lorad/engine/optim"
	"lorad/node/replica"
	"lorad/node/tally"
)

func (p *plain) Layout() []engine.Tensor {
	return []engine.Tensor{{Name: "all", Shape: []int{len(p.params)}}}
}
func (p *plain) Changed() {}

// BenchmarkHost is the host's part of a step of a node alone whose GPU adds up, for the 12.6 million parameters of TinyLlama's adapters (r = 16): the sum arrives,
// as fast as memory is copied, and is rounded; clipping and AdamW; the digest. Beside it, what the host had to do for each micro-batch when it added up.
func BenchmarkHost(b *testing.B) {
	const params = 12_615_680
	for _, threads := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			mine, all := crew(1, params)
			mine[0].quick = true
			ring, _ := allreduce.NewGroup(allreduce.Config{Members: []string{"alone"}}, allreduce.Links{})
			defer ring.Close()
			rep := replica.New(all[0], replica.Rule{AdamW: optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8},
				Schedule: optim.Schedule{Kind: "constant", Peak: 1e-4, Total: 1 << 30}, MaxNorm: 1e-12, Threads: threads})
			sum, host, grad := tally.New(1, -40, threads, all[0]), allreduce.NewAccum(params, 1, -40), make([]float32, params)
			var out allreduce.Sum
			spent := map[string]time.Duration{}
			clock := func(what string, f func()) {
				began := time.Now()
				f()
				spent[what] += time.Since(began)
			}
			for b.Loop() {
				sum.Reset(1, nil)
				_ = sum.Add(0, tally.Gradient{Held: mine[0]}, 1, 1)
				clock("sum-ms", func() { _, _ = sum.Reduce(context.Background(), ring, allreduce.OpID{}, &out) })
				clock("step-ms", func() { rep.Step(out.Grad) })
				clock("digest-ms", func() { rep.Digest() })
				host.Reset()
				clock("micro-batch-on-the-host-ms", func() { _ = host.Add(0, grad, 1, 1, 1) })
			}
			for what, d := range spent {
				b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), what)
			}
		})
	}
}
