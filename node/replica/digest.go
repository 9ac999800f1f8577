package replica

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
	"unsafe"

	"lorad/engine/optim"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// digest is that of a state: see Replica.Digest.
func digest(params []float32, done uint64, o optim.Optimizer, history []byte, threads int) uint64 {
	moments := uint32(done)
	o.Visit(
		func(x []float32) { moments = checksum(moments, x, threads) },
		func(x []byte) { moments = hashed(moments, x, threads) })
	moments = crc32.Update(moments, castagnoli, history)
	return uint64(checksum(0, params, threads))<<32 | uint64(moments)
}

// checksum continues a CRC-32C with floats, little-endian.
func checksum(crc uint32, x []float32, threads int) uint32 {
	if littleEndian && len(x) > 0 {
		return hashed(crc, unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*len(x)), threads)
	}
	var buf [4096]byte
	for some := range slices.Chunk(x, len(buf)/4) {
		put(buf[:], some)
		crc = crc32.Update(crc, castagnoli, buf[:4*len(some)])
	}
	return crc
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

func put(buf []byte, x []float32) {
	for i, f := range x {
		binary.LittleEndian.PutUint32(buf[4*i:], math.Float32bits(f))
	}
}

// hashLen is how many bytes are hashed by one thread at a time.
const hashLen = 1 << 20

// hashed continues a CRC-32C with data, in pieces that are put together: the state of a large adapter is 150 MB, hashed after each step.
func hashed(crc uint32, data []byte, threads int) uint32 {
	if threads <= 1 || len(data) <= hashLen {
		return crc32.Update(crc, castagnoli, data)
	}
	pieces := slices.Collect(slices.Chunk(data, hashLen))
	sums, work := make([]uint32, len(pieces)), make([]func(), len(pieces))
	for i, p := range pieces {
		work[i] = func() { sums[i] = crc32.Checksum(p, castagnoli) }
	}
	share(threads, work)
	for i, p := range pieces {
		crc = times(crc, shift(len(p))) ^ sums[i] // a CRC is linear: that of a, then b is that of a, then zeros, and that of b
	}
	return crc
}

// one is the polynomial 1; the coefficient of x^i is bit 31-i, as in the CRC.
const one = uint32(1) << 31

// shift is x^(8n) modulo the CRC's polynomial: what n bytes of zeros multiply a CRC by.
func shift(n int) uint32 {
	p, square := one, one>>8
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			p = times(p, square)
		}
		square = times(square, square)
	}
	return p
}

// times multiplies modulo the CRC's polynomial.
func times(a, b uint32) (p uint32) {
	for ; a != 0; a <<= 1 {
		if a&one != 0 {
			p ^= b
		}
		if b&1 == 1 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return p
}
