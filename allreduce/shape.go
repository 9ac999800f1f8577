package allreduce

import (
	"encoding/binary"
	"hash/crc32"
)

// segBlocks blocks of the widest values still fit a frame: 31*(1+8*1024) bytes = 248 KiB.
const segBlocks = 31

// shape is how a vector is cut: blocks (gradient first, then the trailer, never both in one block), one chunk
// of whole blocks per member, segments of a chunk. It is a function of three numbers that all members share.
type shape struct {
	params, trailer, size int
}

func (s shape) gradBlocks() int { return ceilDiv(s.params, blockLen) }

func (s shape) blocks() int { return s.gradBlocks() + ceilDiv(s.trailer, blockLen) }

// block is the range of slots of block b.
func (s shape) block(b int) (lo, hi int) {
	if g := s.gradBlocks(); b >= g {
		lo = s.params + (b-g)*blockLen
		return lo, min(lo+blockLen, s.params+s.trailer)
	}
	lo = b * blockLen
	return lo, min(lo+blockLen, s.params)
}

// chunk is the range of blocks of chunk c.
func (s shape) chunk(c int) (b0, b1 int) {
	n := s.blocks()
	return n * c / s.size, n * (c + 1) / s.size
}

// segments is the number of segments of chunk c; it may be 0 when there are fewer blocks than members.
func (s shape) segments(c int) int {
	b0, b1 := s.chunk(c)
	return ceilDiv(b1-b0, segBlocks)
}

// segment is the range of blocks of segment k of chunk c.
func (s shape) segment(c, k int) (b0, b1 int) {
	b0, b1 = s.chunk(c)
	b0 += k * segBlocks
	return b0, min(b0+segBlocks, b1)
}

// allSegments is the number of segments of the whole vector.
func (s shape) allSegments() int {
	n := 0
	for c := range s.size {
		n += s.segments(c)
	}
	return n
}

// plan is a fingerprint of all that members must agree on before their numbers may be added.
func (s shape) plan(unitLog2 int) uint32 {
	var b []byte
	for _, x := range []int{s.params, s.trailer, s.size, unitLog2, blockLen, segBlocks} {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	return crc32.Checksum(b, castagnoli)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
