package replica

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// A checksum in pieces is the checksum.
func TestHashedInPieces(t *testing.T) {
	data := make([]byte, 3*hashLen+1000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for range 20 {
		crc, n := rng.Uint32(), rng.IntN(len(data))
		if got, want := hashed(crc, data[:n], 3), crc32.Update(crc, castagnoli, data[:n]); got != want {
			t.Fatalf("%d bytes: %08x, want %08x", n, got, want)
		}
	}
	for n := range 1000 {
		a, b := data[:n/3], data[n/3:n]
		if got := times(crc32.Checksum(a, castagnoli), shift(len(b))) ^ crc32.Checksum(b, castagnoli); got != crc32.Checksum(data[:n], castagnoli) {
			t.Fatalf("%d bytes and %d: %08x", len(a), len(b), got)
		}
	}
}

// The bytes that are hashed are little-endian, whatever the machine.
func TestChecksumOfFloats(t *testing.T) {
	x := make([]float32, 3000)
	buf := make([]byte, 4*len(x))
	for i := range x {
		x[i] = rand.Float32() - 0.5
	}
	put(buf, x)
	if got, want := checksum(7, x, 2), crc32.Update(7, castagnoli, buf); got != want || checksum(7, nil, 2) != 7 {
		t.Errorf("%08x, want %08x", got, want)
	}
}
