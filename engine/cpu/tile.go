package cpu

import "unsafe"

// tile computes a rows x cols block of C over k >= 1 steps:
//
//	C[i,j] = (acc ? C[i,j] : 0) + sum_p A[i,p]*B[p,j],  A[i,p] = a[i*as+p*ak],  B[p,j] = b[p*bs+j],  C[i,j] = c[i*cs+j]
//
// with strides in elements. The sum starts at 0 and runs up in p; C is added last. With strides for both directions of A,
// one tile serves A and its transpose, in place or packed; only B has to have unit stride along j. next is where rows of A begin that will be
// needed soon, or nil; a tile may have some of them fetched while it computes.
//
// one, which a level need not have, computes a single row, the same way to the last bit.
type tile struct {
	rows, cols int
	run        func(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)
	one        func(k int, a *float32, ak int, b *float32, bs int, c *float32, acc bool)
}

// transposer writes dst[p*ds+i] = src[i*ld+p] for i < rows, p < k, k a multiple of 4.
type transposer struct {
	rows int
	run  func(k int, src *float32, ld int, dst *float32, ds int)
}

// kernels is what a level brings to the matrix product. narrow is used for widths up to narrow.cols; tall, which a level need not have and which
// needs as = 1, for gradients of LoRA's factors. Its columns divide the others'.
type kernels struct {
	simd         simd
	wide, narrow tile
	tall         tile
	transpose    transposer // rows divides the width of both tiles
	pairs        pairKernels
}

// kernelsGo is the plain Go set.
func kernelsGo() kernels {
	t := tile{rows: 2, cols: 4, run: tile2x4}
	return kernels{wide: t, narrow: t, transpose: transposer{4, transpose4}}
}

// tile2x4 has as many sums as amd64 has scalar registers for.
func tile2x4(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, _ *float32) {
	var s0, s1, s2, s3, t0, t1, t2, t3 float32
	for p := range k {
		q := four(b, p*bs)
		x, y := *at(a, p*ak), *at(a, as+p*ak)
		s0 += x * q[0]
		s1 += x * q[1]
		s2 += x * q[2]
		s3 += x * q[3]
		t0 += y * q[0]
		t1 += y * q[1]
		t2 += y * q[2]
		t3 += y * q[3]
	}
	store4(four(c, 0), [4]float32{s0, s1, s2, s3}, acc)
	store4(four(c, cs), [4]float32{t0, t1, t2, t3}, acc)
}

func store4(c *[4]float32, s [4]float32, acc bool) {
	for j := range c {
		if acc {
			s[j] += c[j]
		}
		c[j] = s[j]
	}
}

func transpose4(k int, src *float32, ld int, dst *float32, ds int) {
	for p := range k {
		q := four(dst, p*ds)
		for i := range q {
			q[i] = *at(src, i*ld+p)
		}
	}
}

// at is &p[i] as C would have it. The driver has checked the bounds of whole matrices (see check); doing it again for
// every element would double the time.
func at(p *float32, i int) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(p), 4*i)) }

func four(p *float32, i int) *[4]float32 { return (*[4]float32)(unsafe.Pointer(at(p, i))) }
