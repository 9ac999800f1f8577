package curriculum

import "math/bits"

// stream is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): draw k
// is a hash of start + k*golden, so a permutation is a function of (seed, epoch) alone.
type stream struct{ x uint64 }

const golden = 0x9e3779b97f4a7c15 // 2^64 / golden ratio, odd

// newStream keys a stream by hashing seed and epoch one after the other, so that (1, 2) and (2, 1) share nothing.
func newStream(seed uint64, epoch int) stream {
	return stream{mix(mix(seed+golden) ^ uint64(epoch))}
}

func (s *stream) next() uint64 {
	s.x += golden
	return mix(s.x)
}

// below draws from [0, n). The high word of a 64x64 product is biased by less than n/2^64, which no run can see.
func (s *stream) below(n int) int {
	hi, _ := bits.Mul64(s.next(), uint64(n))
	return int(hi)
}

// mix is SplitMix64's finaliser (Stafford's variant 13).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
