#include "textflag.h"

#define ROW(addr, lo, hi) \
	VBROADCASTSS addr, Y14 \
	VFMADD231PS Y12, Y14, lo \
	VFMADD231PS Y13, Y14, hi

#define CLEAR(y) VXORPS y, y, y

#define STORE(lo, hi) \
	VMOVUPS lo, (DX) \
	VMOVUPS hi, 32(DX) \
	ADDQ R9, DX

#define ADDSTORE(lo, hi) \
	VADDPS (DX), lo, lo \
	VADDPS 32(DX), hi, hi \
	STORE(lo, hi)

// func tile6x16(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)
TEXT ·tile6x16(SB), NOSPLIT, $0-80
	MOVQ k+0(FP), CX
	MOVQ a+8(FP), SI
	MOVQ as+16(FP), R8
	MOVQ ak+24(FP), R9
	MOVQ b+32(FP), DI
	MOVQ bs+40(FP), R10
	SHLQ $2, R8
	SHLQ $2, R9
	SHLQ $2, R10
	LEAQ (R8)(R8*2), R11
	LEAQ (R8)(R8*4), R12
	CLEAR(Y0)
	CLEAR(Y1)
	CLEAR(Y2)
	CLEAR(Y3)
	CLEAR(Y4)
	CLEAR(Y5)
	CLEAR(Y6)
	CLEAR(Y7)
	CLEAR(Y8)
	CLEAR(Y9)
	CLEAR(Y10)
	CLEAR(Y11)

loop:
	VMOVUPS (DI), Y12
	VMOVUPS 32(DI), Y13
	ROW((SI), Y0, Y1)
	ROW((SI)(R8*1), Y2, Y3)
	ROW((SI)(R8*2), Y4, Y5)
	ROW((SI)(R11*1), Y6, Y7)
	ROW((SI)(R8*4), Y8, Y9)
	ROW((SI)(R12*1), Y10, Y11)
	ADDQ R9, SI
	ADDQ R10, DI
	DECQ CX
	JNZ  loop

	MOVQ c+48(FP), DX
	MOVQ cs+56(FP), R9
	SHLQ $2, R9
	CMPB acc+64(FP), $0
	JNE  add
	STORE(Y0, Y1)
	STORE(Y2, Y3)
	STORE(Y4, Y5)
	STORE(Y6, Y7)
	STORE(Y8, Y9)
	STORE(Y10, Y11)
	VZEROUPPER
	RET

add:
	ADDSTORE(Y0, Y1)
	ADDSTORE(Y2, Y3)
	ADDSTORE(Y4, Y5)
	ADDSTORE(Y6, Y7)
	ADDSTORE(Y8, Y9)
	ADDSTORE(Y10, Y11)
	VZEROUPPER
	RET

// func transpose8(k int, src *float32, ld int, dst *float32, ds int)
//
// As transpose16, with two lanes: rows 0..3 in the low lanes, 4..7 in the high ones.
TEXT ·transpose8(SB), NOSPLIT, $0-40
	MOVQ k+0(FP), CX
	MOVQ src+8(FP), SI
	MOVQ ld+16(FP), R8
	MOVQ dst+24(FP), DI
	MOVQ ds+32(FP), R9
	SHLQ $2, R8
	SHLQ $2, R9
	LEAQ (R8)(R8*2), R11
	LEAQ (SI)(R8*4), R10
	LEAQ (R9)(R9*2), BX

loop:
	VMOVUPS (SI), X0
	VMOVUPS (SI)(R8*1), X1
	VMOVUPS (SI)(R8*2), X2
	VMOVUPS (SI)(R11*1), X3
	VINSERTF128 $1, (R10), Y0, Y0
	VINSERTF128 $1, (R10)(R8*1), Y1, Y1
	VINSERTF128 $1, (R10)(R8*2), Y2, Y2
	VINSERTF128 $1, (R10)(R11*1), Y3, Y3
	VUNPCKLPS Y1, Y0, Y4
	VUNPCKHPS Y1, Y0, Y5
	VUNPCKLPS Y3, Y2, Y6
	VUNPCKHPS Y3, Y2, Y7
	VUNPCKLPD Y6, Y4, Y0
	VUNPCKHPD Y6, Y4, Y1
	VUNPCKLPD Y7, Y5, Y2
	VUNPCKHPD Y7, Y5, Y3
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, (DI)(R9*1)
	VMOVUPS Y2, (DI)(R9*2)
	VMOVUPS Y3, (DI)(BX*1)
	LEAQ (DI)(R9*4), DI
	ADDQ $16, SI
	ADDQ $16, R10
	SUBQ $4, CX
	JNZ  loop
	VZEROUPPER
	RET
