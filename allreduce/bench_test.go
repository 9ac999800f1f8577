package allreduce

import (
	"math/rand/v2"
	"testing"
)

// loraGrad is a gradient of TinyLlama r=16 size, with the spread of a real one.
func loraGrad() []float32 {
	g := make([]float32, 1_260_000)
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

// blocks runs f over the blocks of a quantised gradient, tight and not.
func blocks(b *testing.B, f func(v []int64, buf []byte, tight bool) (n int)) {
	g := loraGrad()
	a := NewAccum(len(g), 1, -40)
	if err := a.Add(0, g, 1, 1, 1); err != nil {
		b.Fatal(err)
	}
	s, buf := newShape(len(g), 1, []int64{1}, nil), make([]byte, MaxPayload+slack)
	for name, tight := range map[string]bool{"tight": true, "loose": false} {
		b.Run(name, func(b *testing.B) {
			bytes := 0
			perParam(b, len(g), func() {
				bytes = 0
				for i := range s.gradBlocks() {
					lo, hi := s.block(i)
					bytes += f(a.v[lo:hi], buf, tight)
				}
			})
			b.ReportMetric(float64(bytes)/float64(len(g)), "B/param")
		})
	}
}

func BenchmarkPack(b *testing.B) {
	blocks(b, func(v []int64, buf []byte, tight bool) int { return pack(buf, v, tight) })
}

// BenchmarkUnpackAdd reads one block over and over.
func BenchmarkUnpackAdd(b *testing.B) {
	dst, packed := make([]int64, blockLen), [2]int{}
	blocks(b, func(v []int64, buf []byte, tight bool) int {
		return unpacked(b, &packed, tight, func(n *int) { *n = pack(buf, v, tight) },
			func(n int) (int, error) { return unpackAdd(dst[:len(v)], v, buf[:n+slack], n) })
	})
}

// unpacked packs once per form and then reads.
func unpacked(b *testing.B, packed *[2]int, tight bool, pack func(*int), read func(int) (int, error)) int {
	at := &packed[0]
	if tight {
		at = &packed[1]
	}
	if *at == 0 {
		*packed = [2]int{}
		pack(at)
	}
	n, err := read(*at)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func BenchmarkPackFloats(b *testing.B) {
	grad := make([]float32, blockLen)
	blocks(b, func(v []int64, buf []byte, tight bool) int {
		round(grad[:len(v)], v, 0x1p-40)
		return packFloats(buf, grad[:len(v)], 0x1p-40, tight)
	})
}

func BenchmarkUnpackFloats(b *testing.B) {
	grad, packed := make([]float32, blockLen), [2]int{}
	blocks(b, func(v []int64, buf []byte, tight bool) int {
		return unpacked(b, &packed, tight, func(n *int) {
			round(grad, v, 0x1p-40)
			*n = packFloats(buf, grad, 0x1p-40, tight)
		}, func(n int) (int, error) { return unpackFloats(grad[:len(v)], 0x1p-40, buf[:n+slack], n) })
	})
}

func BenchmarkRound(b *testing.B) {
	g := loraGrad()
	a := NewAccum(len(g), 1, -40)
	_ = a.Add(0, g, 1, 1, 1)
	perParam(b, len(g), func() { round(g, a.v[:len(g)], 0x1p-40) })
}
