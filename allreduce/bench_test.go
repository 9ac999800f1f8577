package allreduce

import (
	"math/rand/v2"
	"testing"
)

// loraGrad is a gradient of TinyLlama r=16 size, with the spread of a real one.
func loraGrad() []float32 {
	g := make([]float32, 12_600_000)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range g {
		g[i] = float32(rng.NormFloat64() * 1e-4)
	}
	return g
}

// perParam reports nanoseconds per parameter.
func perParam(b *testing.B, params int, f func()) {
	f()
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(params), "ns/param")
}

func BenchmarkAdd(b *testing.B) {
	g := loraGrad()
	a := NewAccum(len(g), 1, -40)
	perParam(b, len(g), func() {
		*a.counter(0) = 0 // the same micro-batch again; the sum stays far from overflow
		if err := a.Add(0, g, 1, 1, 1); err != nil || !a.Has(0) || *a.counter(0) != 1 {
			b.Fatal(err)
		}
	})
}

func BenchmarkReset(b *testing.B) {
	a := NewAccum(12_600_000, 1, -40)
	perParam(b, a.params, a.Reset)
}

// blocks runs f over the blocks of a quantised gradient.
func blocks(b *testing.B, f func(v []int64, buf []byte)) {
	g := loraGrad()
	a := NewAccum(len(g), 1, -40)
	if err := a.Add(0, g, 1, 1, 1); err != nil {
		b.Fatal(err)
	}
	s, buf := shape{len(g), 1, 1}, make([]byte, MaxPayload+slack)
	perParam(b, len(g), func() {
		for i := range s.gradBlocks() {
			lo, hi := s.block(i)
			f(a.v[lo:hi], buf)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	bytes, values := 0, 0
	blocks(b, func(v []int64, buf []byte) {
		bytes += pack(buf, v)
		values += len(v)
	})
	b.ReportMetric(float64(bytes)/float64(values), "B/param")
}

func BenchmarkUnpackAdd(b *testing.B) {
	dst, first, n := make([]int64, blockLen), true, 0
	blocks(b, func(v []int64, buf []byte) {
		if first { // measure the reading of one full block over and over
			n, first = pack(buf, v), false
		}
		if len(v) < blockLen {
			return
		}
		if _, err := unpackAdd(dst, v, buf[:n+slack], n); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkRound(b *testing.B) {
	grad := make([]float32, blockLen)
	blocks(b, func(v []int64, _ []byte) { round(grad[:len(v)], v, 1) })
}
