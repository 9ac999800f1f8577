package allreduce

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLanesAreTheLoops: whatever the processor has for whole groups does what the loops do, at every width, and touches nothing
// beyond the slack.
func TestLanesAreTheLoops(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	for w := uint(1); w <= widest; w++ {
		for _, n := range []int{1, 7, 8, 9, 64, 255, 256} {
			v, in := make([]int64, n), make([]int64, n)
			for i := range v {
				v[i], in[i] = int64(rng.Uint64())>>(64-w), int64(rng.Uint64())
			}
			size := packed(n, int(w))
			fast, slow := make([]byte, size+slack), make([]byte, size+slack)
			packValues(fast, v, w)
			if w < 32 {
				packPairs(slow, v, w)
			} else {
				packBits(slow, v, w)
			}
			if !bytes.Equal(fast[:size], slow[:size]) {
				t.Fatalf("%d values of %d bits: %x, want %x", n, w, fast[:size], slow[:size])
			}
			got, want := make([]int64, n), make([]int64, n)
			k := fastAdd(got, in, fast, w)
			addBits(got[k:], in[k:], fast[k/8*int(w):], w)
			addBits(want, in, fast, w)
			if !slices.Equal(got, want) {
				t.Fatalf("%d values of %d bits: %v, want %v", n, w, got, want)
			}
		}
	}
}

// TestDeltaLanesAreTheLoops does the same with finished values, and with what a width and a base are found from.
func TestDeltaLanesAreTheLoops(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 9))
	for w := uint(1); w < 32; w++ {
		g, v := make([]float32, blockLen), make([]int64, blockLen)
		base := rng.Uint32() >> 2
		for i := range g {
			x := rng.Uint32() >> (32 - w)
			v[i] = int64(x)
			g[i] = math.Float32frombits(x&(1<<(w-1)-1) + base | x>>(w-1)<<31)
		}
		size := packed(len(g), int(w))
		fast, slow := make([]byte, size+slack), make([]byte, size+slack)
		packDelta(fast, g, base, w)
		packPairs(slow, v, w)
		if !bytes.Equal(fast[:size], slow[:size]) {
			t.Fatalf("%d bits: packed otherwise", w)
		}
		got := make([]float32, len(g))
		if unpackDelta(got, base, fast, w); !sameBits(got, g) {
			t.Fatalf("%d bits: got %v, want %v", w, got, g)
		}
		lo, hi := uint32(math.MaxUint32), uint32(0)
		for _, x := range g {
			lo, hi = min(lo, math.Float32bits(x)&^(1<<31)), max(hi, math.Float32bits(x)&^(1<<31))
		}
		if l, h := magnitudes(g[:len(g)-3]); l < lo || h > hi {
			t.Fatalf("%d bits: magnitudes %d..%d beyond %d..%d", w, l, h, lo, hi)
		}
		if l, h := magnitudes(g); l != lo || h != hi {
			t.Fatalf("%d bits: magnitudes %d..%d, want %d..%d", w, l, h, lo, hi)
		}
		if got, want := width(v), int(w)+1; got > want {
			t.Fatalf("%d bits: width %d", w, got)
		}
	}
}
