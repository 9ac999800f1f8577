#include "textflag.h"

// One row of C against panels of the tiles' widths: see tile.one. Two sums hide no latency, but with one row every panel comes from memory
// or the second cache, which is slower.

#define ARGUMENTS \
	MOVQ k+0(FP), CX \
	MOVQ a+8(FP), SI \
	MOVQ ak+16(FP), R9 \
	MOVQ b+24(FP), DI \
	MOVQ bs+32(FP), R10 \
	MOVQ c+40(FP), DX \
	SHLQ $2, R9 \
	SHLQ $2, R10

// func tile1x32(k int, a *float32, ak int, b *float32, bs int, c *float32, acc bool)
TEXT ·tile1x32(SB), NOSPLIT, $0-49
	ARGUMENTS
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1

loop:
	VBROADCASTSS (SI), Z2
	VFMADD231PS (DI), Z2, Z0
	VFMADD231PS 64(DI), Z2, Z1
	ADDQ R9, SI
	ADDQ R10, DI
	DECQ CX
	JNZ  loop

	CMPB acc+48(FP), $0
	JEQ  store
	VADDPS (DX), Z0, Z0
	VADDPS 64(DX), Z1, Z1

store:
	VMOVUPS Z0, (DX)
	VMOVUPS Z1, 64(DX)
	VZEROUPPER
	RET

// func tile1x16(k int, a *float32, ak int, b *float32, bs int, c *float32, acc bool)
TEXT ·tile1x16(SB), NOSPLIT, $0-49
	ARGUMENTS
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1

loop:
	VBROADCASTSS (SI), Y2
	VFMADD231PS (DI), Y2, Y0
	VFMADD231PS 32(DI), Y2, Y1
	ADDQ R9, SI
	ADDQ R10, DI
	DECQ CX
	JNZ  loop

	CMPB acc+48(FP), $0
	JEQ  store
	VADDPS (DX), Y0, Y0
	VADDPS 32(DX), Y1, Y1

store:
	VMOVUPS Y0, (DX)
	VMOVUPS Y1, 32(DX)
	VZEROUPPER
	RET
