#include "textflag.h"

// ROW: a vector of one element of A, and on to the next step along k.
#define ROW(ptr, lo, hi) \
	VLD1R.P (ptr)(R10), [V18.S4] \
	VFMLA V16.S4, V18.S4, lo.S4 \
	VFMLA V17.S4, V18.S4, hi.S4

#define CLEAR(v) VEOR v.B16, v.B16, v.B16

#define STORE(lo, hi) \
	VST1 [lo.S4, hi.S4], (R11) \
	ADD R12, R11

// ADDSTORE: there is no vector addition in Go's assembler; C + 1*sum is the same.
#define ADDSTORE(lo, hi) \
	VLD1 (R11), [V16.S4, V17.S4] \
	VFMLA V19.S4, lo.S4, V16.S4 \
	VFMLA V19.S4, hi.S4, V17.S4 \
	STORE(V16, V17)

// func tile8x8(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)
TEXT ·tile8x8(SB), NOSPLIT, $0-80
	MOVD k+0(FP), R0
	MOVD a+8(FP), R1
	MOVD as+16(FP), R9
	MOVD ak+24(FP), R10
	MOVD b+32(FP), R11
	MOVD bs+40(FP), R12
	LSL  $2, R9
	LSL  $2, R10
	LSL  $2, R12
	ADD  R9, R1, R2
	ADD  R9, R2, R3
	ADD  R9, R3, R4
	ADD  R9, R4, R5
	ADD  R9, R5, R6
	ADD  R9, R6, R7
	ADD  R9, R7, R8
	CLEAR(V0)
	CLEAR(V1)
	CLEAR(V2)
	CLEAR(V3)
	CLEAR(V4)
	CLEAR(V5)
	CLEAR(V6)
	CLEAR(V7)
	CLEAR(V8)
	CLEAR(V9)
	CLEAR(V10)
	CLEAR(V11)
	CLEAR(V12)
	CLEAR(V13)
	CLEAR(V14)
	CLEAR(V15)

loop:
	VLD1 (R11), [V16.S4, V17.S4]
	ADD  R12, R11
	ROW(R1, V0, V1)
	ROW(R2, V2, V3)
	ROW(R3, V4, V5)
	ROW(R4, V6, V7)
	ROW(R5, V8, V9)
	ROW(R6, V10, V11)
	ROW(R7, V12, V13)
	ROW(R8, V14, V15)
	SUBS $1, R0
	BNE  loop

	MOVD  c+48(FP), R11
	MOVD  cs+56(FP), R12
	LSL   $2, R12
	MOVBU acc+64(FP), R0
	CBNZ  R0, add
	STORE(V0, V1)
	STORE(V2, V3)
	STORE(V4, V5)
	STORE(V6, V7)
	STORE(V8, V9)
	STORE(V10, V11)
	STORE(V12, V13)
	STORE(V14, V15)
	RET

add:
	MOVD $0x3f800000, R0
	VDUP R0, V19.S4
	ADDSTORE(V0, V1)
	ADDSTORE(V2, V3)
	ADDSTORE(V4, V5)
	ADDSTORE(V6, V7)
	ADDSTORE(V8, V9)
	ADDSTORE(V10, V11)
	ADDSTORE(V12, V13)
	ADDSTORE(V14, V15)
	RET

// func transposeNEON(k int, src *float32, ld int, dst *float32, ds int)
TEXT ·transposeNEON(SB), NOSPLIT, $0-40
	MOVD k+0(FP), R0
	MOVD src+8(FP), R1
	MOVD ld+16(FP), R9
	MOVD dst+24(FP), R5
	MOVD ds+32(FP), R10
	LSL  $2, R9
	LSL  $2, R10
	ADD  R9, R1, R2
	ADD  R9, R2, R3
	ADD  R9, R3, R4

loop:
	VLD1.P 16(R1), [V0.S4]
	VLD1.P 16(R2), [V1.S4]
	VLD1.P 16(R3), [V2.S4]
	VLD1.P 16(R4), [V3.S4]
	VZIP1  V1.S4, V0.S4, V4.S4
	VZIP2  V1.S4, V0.S4, V5.S4
	VZIP1  V3.S4, V2.S4, V6.S4
	VZIP2  V3.S4, V2.S4, V7.S4
	VZIP1  V6.D2, V4.D2, V0.D2
	VZIP2  V6.D2, V4.D2, V1.D2
	VZIP1  V7.D2, V5.D2, V2.D2
	VZIP2  V7.D2, V5.D2, V3.D2
	VST1.P [V0.S4], (R5)(R10)
	VST1.P [V1.S4], (R5)(R10)
	VST1.P [V2.S4], (R5)(R10)
	VST1.P [V3.S4], (R5)(R10)
	SUBS   $4, R0
	BNE    loop
	RET
