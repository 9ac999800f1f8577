package allreduce

import (
	"encoding/binary"
	"hash/crc32"
)

// segBlocks blocks of the widest values still fit a frame: 127*(1+8*256) bytes = 254 KiB.
const segBlocks = 127

// shape is how a vector is cut: blocks (gradient first, then the trailer, never both in one block), chunks of whole
// blocks, segments of a chunk. All members make the same one.
type shape struct {
	params, trailer int
	bounds          []int // [chunks+1]: chunk c is blocks bounds[c]..bounds[c+1]
}

// newShape cuts a vector in proportion to shares, one chunk for each; it needs no memory beyond bounds' capacity.
func newShape(params, trailer int, shares []int64, bounds []int) shape {
	s := shape{params: params, trailer: trailer}
	var total, sum int64
	for _, x := range shares {
		total += x
	}
	n := int64(s.blocks())
	s.bounds = append(bounds[:0], 0)
	for _, x := range shares {
		sum += x
		s.bounds = append(s.bounds, int(n*sum/total))
	}
	return s
}

func (s shape) chunks() int { return len(s.bounds) - 1 }

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

// segments is the number of segments of chunk c; it may be 0, when there are fewer blocks than members or a share is 0.
func (s shape) segments(c int) int {
	return ceilDiv(s.bounds[c+1]-s.bounds[c], segBlocks)
}

// segment is the range of blocks of segment k of chunk c.
func (s shape) segment(c, k int) (b0, b1 int) {
	b0 = s.bounds[c] + k*segBlocks
	return b0, min(b0+segBlocks, s.bounds[c+1])
}

// allSegments is the number of segments of the whole vector.
func (s shape) allSegments() int {
	n := 0
	for c := range s.chunks() {
		n += s.segments(c)
	}
	return n
}

// plan is a fingerprint of all that members must agree on before their numbers may be added.
func (s shape) plan(way Way, unitLog2 int, units uint32) uint32 {
	var b []byte
	for _, x := range append([]int{s.params, s.trailer, unitLog2, int(units), blockLen, segBlocks, int(way)}, s.bounds...) {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	return crc32.Checksum(b, castagnoli)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
