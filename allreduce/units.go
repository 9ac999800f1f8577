package allreduce

import (
	"hash/crc32"
	"math"
)

// power is 2^e, e = -126..127.
func power(e int8) float32 { return math.Float32frombits(uint32(127+int32(e)) << 23) }

// checksumUnits fingerprints units; it is never 0.
func checksumUnits(units []int8) uint32 {
	var buf [4096]byte
	sum := uint32(1)
	for len(units) > 0 {
		n := min(len(units), len(buf))
		for i, u := range units[:n] {
			buf[i] = byte(u)
		}
		sum, units = crc32.Update(sum, castagnoli, buf[:n]), units[n:]
	}
	return max(sum, 1)
}

// addCoarse is addGrad with a unit for each value.
func (a *Accum) addCoarse(g []float32) bool {
	v, units := a.gradient()[:len(g)], a.units[:len(g)]
	for i, x := range g {
		q := float64(x) * float64(power(-units[i]))
		if !a.fits(q) {
			for j, x := range g[:i] {
				v[j] -= int64(math.RoundToEven(float64(x) * float64(power(-units[j]))))
			}
			return false
		}
		v[i] += int64(math.RoundToEven(q))
	}
	return true
}

// roundUnits is round with a unit for each value.
func roundUnits(grad []float32, sum []int64, units []int8) {
	sum, units = sum[:len(grad)], units[:len(grad)]
	for i := range grad {
		grad[i] = float32(sum[i]) * power(units[i])
	}
}

// packUnits is packFloats with a unit for each value: integers, always. A sum that was rounded to f32 is a multiple of its
// unit still.
func packUnits(dst []byte, g []float32, units []int8) int {
	var v [blockLen]int64
	for i, x := range g {
		v[i] = int64(x * power(-units[i]))
	}
	return pack(dst, v[:len(g)], true)
}

// unpackUnits reads what packUnits wrote.
func unpackUnits(g []float32, units []int8, src []byte, end int) (int, error) {
	var zero, v [blockLen]int64
	n, err := unpackAdd(v[:len(g)], zero[:], src, end)
	if err == nil {
		roundUnits(g, v[:len(g)], units)
	}
	return n, err
}
