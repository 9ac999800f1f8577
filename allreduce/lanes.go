package allreduce

// lanes says how 8 values of w bits lie in w bytes, for processors that move bytes within a 64-byte register (AVX-512 VBMI). The
// assembly knows the offsets of its fields.
type lanes struct {
	shift  [8]uint64 // bit in its first byte at which value j begins
	left   [8]uint64 // 64 - w - shift
	spread [64]uint8 // [8*j+b] the byte of the group that is byte b of value j, counted from its first
	even   [64]uint8 // [k] the byte of the shifted values, 8 each, that is byte k of the group: of values 0, 2, 4, 6
	odd    [64]uint8 // of values 1, 3, 5, 7: a byte may hold bits of two neighbours
	evenIn uint64    // bit k: byte k holds bits of an even value
	oddIn  uint64
	mask   uint64 // 2^w - 1
	right  uint64 // 64 - w
}

// Groups are packed from leastLane bits on: narrower neighbours but one would share a byte.
const leastLane = 7

// laneTable holds the lanes of every width; it is never written to again.
var laneTable = func() (t [widest + 1]lanes) {
	for w := range t {
		if w >= leastLane {
			t[w] = newLanes(w)
		}
	}
	return t
}()

func newLanes(w int) (l lanes) {
	l.mask, l.right = 1<<w-1, uint64(64-w)
	for j := range 8 {
		first, shift := j*w/8, j*w%8
		l.shift[j], l.left[j] = uint64(shift), uint64(64-w-shift)
		for b := range 8 {
			l.spread[8*j+b] = uint8((first + b) & 63)
		}
		from, in := &l.even, &l.evenIn
		if j%2 == 1 {
			from, in = &l.odd, &l.oddIn
		}
		for b := range (shift + w + 7) / 8 {
			from[first+b] = uint8(8*j + b)
			*in |= 1 << (first + b)
		}
	}
	return l
}

// groups is how many groups of 8 of n values can be read or written 64 bytes at a time within size bytes.
func groups(n, size, w int) int {
	if w < leastLane || w > widest || size < 64 {
		return 0
	}
	return min(n/8, (size-64)/w+1)
}
