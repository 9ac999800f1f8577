package driver

import (
	"encoding/binary"
	"runtime"
	"sync"

	"lorad/engine/cuda/device"
)

// operand is a matrix [n,k] of numbers that are bf16, stored so or, with trans, as [k,n]; in rows of ld elements.
//
// Two operands of which one is mirrored make products that cancel: term i of each sum is the negative of term k-1-i, so the exact result is 0 and
// what is computed is the rounding of partial sums, which a different order of additions, a different cut into
// partial sums or a different width changes in nearly every element. Operands without that property would hide it: most elements of a product in 16 bits are the
// same in any order.
func operand(seed, n, k, ld int, trans bool, t device.Type, mirrored bool) []byte {
	rows := n
	if trans {
		rows = k
	}
	numbers, data := randomBF16(), make([]byte, rows*ld*t.Size())
	var all sync.WaitGroup
	for share := range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for row := share; row < rows; row += runtime.GOMAXPROCS(0) {
				for col := range n + k - rows {
					i, l := row, col
					if trans {
						i, l = col, row
					}
					store(data[(row*ld+col)*t.Size():], t, number(numbers, seed, i, l, k, mirrored))
				}
			}
		})
	}
	all.Wait()
	return data
}

// number is element [i,l] of an operand.
func number(from []uint16, seed, i, l, k int, mirrored bool) uint16 {
	other := k - 1 - l
	if mirrored && l == other {
		return 0
	}
	x := from[(seed*7919+i*40503+min(l, other)*10007)&(len(from)-1)]
	if mirrored && other < l {
		x ^= 0x8000
	}
	return x
}

func store(to []byte, t device.Type, bf16 uint16) {
	if t == device.F32 {
		binary.LittleEndian.PutUint32(to, uint32(bf16)<<16)
	} else {
		binary.LittleEndian.PutUint16(to, bf16)
	}
}

// randomBF16 is numbers of both signs with all mantissas and magnitudes from 2^-4 to 2^4.
func randomBF16() []uint16 {
	numbers := make([]uint16, 1<<16)
	s := uint64(1)
	for i := range numbers {
		s = s*6364136223846793005 + 1442695040888963407
		numbers[i] = uint16(s>>63)<<15 | uint16(123+s>>60&7)<<7 | uint16(s>>33&127)
	}
	return numbers
}
