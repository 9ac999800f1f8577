#include "textflag.h"

DATA ones<>+0(SB)/4, $0x7fff
DATA ones<>+4(SB)/4, $1
GLOBL ones<>(SB), RODATA|NOPTR, $8

// func groups32(n int, dst *uint32, ld int, codes *byte, step int, scales, levels *float32)
//
// The table is 16 numbers twice: of a word's odd half the index is a whole byte, whose fifth bit then does not matter. Rounding is to nearest,
// ties to even, on integers.
TEXT ·groups32(SB), NOSPLIT, $0-56
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ ld+16(FP), R8
	MOVQ codes+24(FP), SI
	MOVQ step+32(FP), R9
	MOVQ scales+40(FP), DX
	MOVQ levels+48(FP), AX
	SHLQ $2, R8
	VMOVUPS (AX), Z10
	VPBROADCASTD ones<>+0(SB), Z11
	VPBROADCASTD ones<>+4(SB), Z12

loop:
	VMULPS.BCST (DX), Z10, Z0
	VPSRLD $16, Z0, Z1
	VPANDD Z12, Z1, Z1
	VPADDD Z11, Z0, Z0
	VPADDD Z1, Z0, Z0
	VPSRLD $16, Z0, Z0
	VPMOVDW Z0, Y0
	VINSERTI64X4 $1, Y0, Z0, Z0
	VPMOVZXBD (SI), Z2
	VPSRLD $4, Z2, Z3
	VPSLLD $16, Z2, Z2
	VPORD Z3, Z2, Z2
	VPERMW Z0, Z2, Z2
	VMOVUPS Z2, (DI)
	ADDQ R8, DI
	ADDQ R9, SI
	ADDQ $4, DX
	DECQ CX
	JNZ  loop
	VZEROUPPER
	RET
