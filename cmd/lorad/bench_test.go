package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"lorad/proto"
)

// BenchmarkCluster trains the tiny job on real clusters on loopback and reports, per step, the median of
//
//	step-µs      all of it
//	compute-µs   gradients
//	reduce-µs    the all-reduce, waiting for the slowest member included
//	rest-µs      everything else: optimiser, digest, log, lease, reports to the coordinator
//
// and first-ms, the time from submission to the first committed step.
func BenchmarkCluster(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) { benchCluster(b, n) })
	}
}

func benchCluster(b *testing.B, n int) {
	b.Setenv(beLorad, "1")
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	c, err := startCluster(ctx, n)
	if err != nil {
		b.Fatal(err)
	}
	defer c.stop()
	cl, err := dial(ctx, c.nodes[0].dir)
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	var steps []*proto.StepRecord
	var first []time.Duration
	for b.Loop() {
		_, req := lay(b, tiny{Steps: 300})
		began := time.Now()
		reply, err := cl.Submit(ctx, req)
		if err != nil {
			b.Fatal(err)
		}
		seen := false
		_, err = cl.follow(ctx, reply.Run.Spec.Run, 0, &eventFunc{func(e *proto.FollowEvent) {
			if len(e.Steps) > 0 && !seen {
				seen = true
				first = append(first, time.Since(began))
			}
			steps = append(steps, e.Steps...)
		}})
		if err != nil {
			b.Fatal(err)
		}
	}
	median := func(name string, of func(*proto.StepRecord) uint64) {
		var x []uint64
		for _, s := range steps {
			x = append(x, of(s))
		}
		slices.Sort(x)
		b.ReportMetric(float64(x[len(x)/2]), name)
	}
	median("step-µs", func(s *proto.StepRecord) uint64 { return s.DurationUs })
	median("compute-µs", func(s *proto.StepRecord) uint64 { return s.ComputeUs })
	median("reduce-µs", func(s *proto.StepRecord) uint64 { return s.ReduceUs })
	median("rest-µs", func(s *proto.StepRecord) uint64 { return s.DurationUs - min(s.DurationUs, s.ComputeUs+s.ReduceUs) })
	slices.Sort(first)
	b.ReportMetric(float64(first[len(first)/2].Milliseconds()), "first-ms")
}

type eventFunc struct{ f func(*proto.FollowEvent) }

func (e *eventFunc) show(ev *proto.FollowEvent) { e.f(ev) }
