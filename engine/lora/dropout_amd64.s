#include "textflag.h"

// HIGH: the upper halves of a*m to hi, lane by lane; K1 is the odd lanes. Clobbers Z14.
#define HIGH(a, m, hi) \
	VPMULUDQ m, a, hi \
	VPSRLQ $32, a, Z14 \
	VPMULUDQ m, Z14, Z14 \
	VPSRLQ $32, hi, hi \
	VMOVDQA32 Z14, K1, hi

// ROUND of Philox4x32: c0..c3 are Z0..Z3, keys Z4 and Z5, multipliers Z6 and Z7, increments Z8 and Z9.
#define ROUND \
	HIGH(Z0, Z6, Z10) \
	HIGH(Z2, Z7, Z11) \
	VPMULLD Z6, Z0, Z12 \
	VPMULLD Z7, Z2, Z13 \
	VPXORD Z1, Z11, Z0 \
	VPXORD Z4, Z0, Z0 \
	VPXORD Z3, Z10, Z2 \
	VPXORD Z5, Z2, Z2 \
	VMOVDQA32 Z13, Z1 \
	VMOVDQA32 Z12, Z3 \
	VPADDD Z8, Z4, Z4 \
	VPADDD Z9, Z5, Z5

// BIT: Z20 = Z20*2 + (x >= threshold).
#define BIT(x) \
	VPSLLD $1, Z20, Z20 \
	VPCMPUD $5, Z17, x, K2 \
	VPORD Z19, Z20, K2, Z20

// PAIR adds the bits of both halves of a word, the upper one first.
#define PAIR(w) \
	VPSRLD $16, w, Z21 \
	BIT(Z21) \
	VPANDD Z18, w, Z21 \
	BIT(Z21)

// func draw16(n int, mask *uint8, first, site, step, key0, key1, threshold uint32)
//
// n is a positive multiple of 16: each lane is a counter, and becomes a byte of the mask.
TEXT ·draw16(SB), NOSPLIT, $0-40
	MOVQ n+0(FP), CX
	MOVQ mask+8(FP), DI
	MOVL first+16(FP), AX
	VPBROADCASTD AX, Z15
	VPADDD lanes<>(SB), Z15, Z15
	MOVL site+20(FP), AX
	VPBROADCASTD AX, Z22
	MOVL step+24(FP), AX
	VPBROADCASTD AX, Z23
	MOVL key0+28(FP), AX
	VPBROADCASTD AX, Z24
	MOVL key1+32(FP), AX
	VPBROADCASTD AX, Z25
	MOVL threshold+36(FP), AX
	VPBROADCASTD AX, Z17
	MOVL $0xD2511F53, AX
	VPBROADCASTD AX, Z6
	MOVL $0xCD9E8D57, AX
	VPBROADCASTD AX, Z7
	MOVL $0x9E3779B9, AX
	VPBROADCASTD AX, Z8
	MOVL $0xBB67AE85, AX
	VPBROADCASTD AX, Z9
	MOVL $0xffff, AX
	VPBROADCASTD AX, Z18
	MOVL $1, AX
	VPBROADCASTD AX, Z19
	MOVL $16, AX
	VPBROADCASTD AX, Z16
	MOVL $0xAAAA, AX
	KMOVW AX, K1

loop:
	VMOVDQA32 Z15, Z0
	VPXORD Z1, Z1, Z1
	VMOVDQA32 Z22, Z2
	VMOVDQA32 Z23, Z3
	VMOVDQA32 Z24, Z4
	VMOVDQA32 Z25, Z5
	ROUND
	ROUND
	ROUND
	ROUND
	ROUND
	ROUND
	ROUND
	ROUND
	ROUND
	ROUND
	VPXORD Z20, Z20, Z20
	PAIR(Z3)
	PAIR(Z2)
	PAIR(Z1)
	PAIR(Z0)
	VPMOVDB Z20, (DI)
	VPADDD Z16, Z15, Z15
	ADDQ $16, DI
	SUBQ $16, CX
	JNZ  loop
	VZEROUPPER
	RET

DATA lanes<>+0(SB)/4, $0
DATA lanes<>+4(SB)/4, $1
DATA lanes<>+8(SB)/4, $2
DATA lanes<>+12(SB)/4, $3
DATA lanes<>+16(SB)/4, $4
DATA lanes<>+20(SB)/4, $5
DATA lanes<>+24(SB)/4, $6
DATA lanes<>+28(SB)/4, $7
DATA lanes<>+32(SB)/4, $8
DATA lanes<>+36(SB)/4, $9
DATA lanes<>+40(SB)/4, $10
DATA lanes<>+44(SB)/4, $11
DATA lanes<>+48(SB)/4, $12
DATA lanes<>+52(SB)/4, $13
DATA lanes<>+56(SB)/4, $14
DATA lanes<>+60(SB)/4, $15
GLOBL lanes<>(SB), RODATA|NOPTR, $64

// func apply16(n int, mask *uint8, factor float32, y, x *float32)
//
// n is a positive multiple of 16. What is dropped is multiplied by 0, as in Go: the sign stays.
TEXT ·apply16(SB), NOSPLIT, $0-40
	MOVQ n+0(FP), CX
	MOVQ mask+8(FP), SI
	VBROADCASTSS factor+16(FP), Z1
	MOVQ y+24(FP), DI
	MOVQ x+32(FP), DX

loop:
	KMOVW (SI), K1
	VMOVAPS.Z Z1, K1, Z0
	VMULPS (DX), Z0, Z0
	VMOVUPS Z0, (DI)
	ADDQ $2, SI
	ADDQ $64, DI
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ  loop
	VZEROUPPER
	RET
