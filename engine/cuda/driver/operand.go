package driver

import (
	"encoding/binary"

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
	numbers := randomBF16()
	data := make([]byte, rows*ld*t.Size())
	for i := range n {
		for l := range k {
			from, sign := l, uint16(0)
			if 2*l >= k {
				if from = k - 1 - l; mirrored {
					sign = 0x8000
				}
			}
			v := numbers[(seed*7919+i*40503+from*10007)&(len(numbers)-1)] ^ sign
			if mirrored && l == k-1-l {
				v = 0
			}
			at := i*ld + l
			if trans {
				at = l*ld + i
			}
			if t == device.F32 {
				binary.LittleEndian.PutUint32(data[4*at:], uint32(v)<<16)
			} else {
				binary.LittleEndian.PutUint16(data[2*at:], v)
			}
		}
	}
	return data
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
