#include "textflag.h"

// The operations with exponentials, sixteen lanes at a time (AVX-512), and the last few under a mask; n is positive. They are bound by
// arithmetic, and half of the instructions do the same. See vector.go for what each computes, and vector_amd64.s for the same in AVX2.

DATA numbers<>+0(SB)/4, $(-87.33654)
DATA numbers<>+4(SB)/4, $88.72283
DATA numbers<>+8(SB)/4, $1.44269504
DATA numbers<>+12(SB)/4, $12582912.0
DATA numbers<>+16(SB)/4, $0.693359375
DATA numbers<>+20(SB)/4, $(-2.12194440e-4)
DATA numbers<>+24(SB)/4, $1.98412698412698412698e-4
DATA numbers<>+28(SB)/4, $1.38888888888888888889e-3
DATA numbers<>+32(SB)/4, $8.33333333333333333333e-3
DATA numbers<>+36(SB)/4, $4.16666666666666666667e-2
DATA numbers<>+40(SB)/4, $1.66666666666666666667e-1
DATA numbers<>+44(SB)/4, $0.5
DATA numbers<>+48(SB)/4, $1.0
DATA numbers<>+52(SB)/4, $0x7f800000
DATA numbers<>+56(SB)/4, $0xff800000
GLOBL numbers<>(SB), RODATA|NOPTR, $60

#define ONE Z30

// NUMBERS loads what EXP needs.
#define NUMBERS \
	VBROADCASTSS numbers<>+0(SB), Z18 \
	VBROADCASTSS numbers<>+4(SB), Z19 \
	VBROADCASTSS numbers<>+8(SB), Z20 \
	VBROADCASTSS numbers<>+12(SB), Z21 \
	VBROADCASTSS numbers<>+16(SB), Z22 \
	VBROADCASTSS numbers<>+20(SB), Z23 \
	VBROADCASTSS numbers<>+24(SB), Z24 \
	VBROADCASTSS numbers<>+28(SB), Z25 \
	VBROADCASTSS numbers<>+32(SB), Z26 \
	VBROADCASTSS numbers<>+36(SB), Z27 \
	VBROADCASTSS numbers<>+40(SB), Z28 \
	VBROADCASTSS numbers<>+44(SB), Z29 \
	VBROADCASTSS numbers<>+48(SB), Z30 \
	VBROADCASTSS numbers<>+52(SB), Z31

#define HORNER(c) \
	VMULPS Z1, Z3, Z3 \
	VADDPS c, Z3, Z3

// EXP: Z0 = exp(Z0), as exp32 of vector.go; scaling by 2^k rounds once there too. Clobbers Z1 to Z3, K2 and K3.
#define EXP \
	VMAXPS Z0, Z18, Z1 \
	VMINPS Z1, Z19, Z1 \
	VMULPS Z20, Z1, Z2 \
	VADDPS Z21, Z2, Z2 \
	VSUBPS Z21, Z2, Z2 \
	VMULPS Z22, Z2, Z3 \
	VSUBPS Z3, Z1, Z1 \
	VMULPS Z23, Z2, Z3 \
	VSUBPS Z3, Z1, Z1 \
	VMULPS Z1, Z24, Z3 \
	VADDPS Z25, Z3, Z3 \
	HORNER(Z26) \
	HORNER(Z27) \
	HORNER(Z28) \
	HORNER(Z29) \
	HORNER(ONE) \
	HORNER(ONE) \
	VCMPPS $22, Z18, Z0, K2 \
	VCMPPS $30, Z19, Z0, K3 \
	VSCALEFPS.Z Z2, Z3, K2, Z0 \
	VMOVAPS Z31, K3, Z0

// MASK: K1 = the first CX of 16.
#define MASK \
	MOVL $1, AX \
	SHLL CX, AX \
	DECL AX \
	KMOVW AX, K1

// func exp16(n int, dst, src *float32, sub, scale, off float32, lanes *[8]float32)
TEXT ·exp16(SB), NOSPLIT, $0-48
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	VBROADCASTSS sub+24(FP), Z10
	VBROADCASTSS scale+28(FP), Z11
	VBROADCASTSS off+32(FP), Z12
	MOVQ lanes+40(FP), DX
	NUMBERS
	VMOVUPS (DX), Y13
	SUBQ $16, CX
	JLT  rest

loop:
	VMOVUPS (SI), Z0
	VSUBPS Z10, Z0, Z0
	VMULPS Z11, Z0, Z0
	VSUBPS Z12, Z0, Z0
	EXP
	VMOVUPS Z0, (DI)
	VADDPS Y0, Y13, Y13
	VEXTRACTF32X8 $1, Z0, Y1
	VADDPS Y1, Y13, Y13
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $16, CX
	JGE  loop

rest:
	ADDQ $16, CX
	JEQ  done
	MASK
	VMOVUPS.Z (SI), K1, Z0
	VSUBPS Z10, Z0, Z0
	VMULPS Z11, Z0, Z0
	VSUBPS Z12, Z0, Z0
	EXP
	VMOVUPS Z0, K1, (DI)
	VADDPS Y0, Y13, K1, Y13
	KSHIFTRW $8, K1, K1
	VEXTRACTF32X8 $1, Z0, Y1
	VADDPS Y1, Y13, K1, Y13

done:
	VMOVUPS Y13, (DX)
	VZEROUPPER
	RET

// func max16(n int, x *float32) float32
TEXT ·max16(SB), NOSPLIT, $0-20
	MOVQ n+0(FP), CX
	MOVQ x+8(FP), SI
	VBROADCASTSS numbers<>+56(SB), Z1
	VMOVAPS Z1, Z2
	SUBQ $32, CX
	JLT  rest

loop:
	VMOVUPS (SI), Z0
	VMAXPS Z1, Z0, Z1
	VMOVUPS 64(SI), Z3
	VMAXPS Z2, Z3, Z2
	ADDQ $128, SI
	SUBQ $32, CX
	JGE  loop

rest:
	ADDQ $16, CX
	JLT  last
	VMOVUPS (SI), Z0
	VMAXPS Z1, Z0, Z1
	ADDQ $64, SI
	SUBQ $16, CX

last:
	ADDQ $16, CX
	JEQ  done
	MASK
	VBROADCASTSS numbers<>+56(SB), Z0
	VMOVUPS (SI), K1, Z0
	VMAXPS Z1, Z0, Z1

done:
	VMAXPS Z1, Z2, Z1
	VEXTRACTF32X8 $1, Z1, Y0
	VMAXPS Y0, Y1, Y1
	VEXTRACTF128 $1, Y1, X0
	VMAXPS X0, X1, X1
	VSHUFPS $0x4e, X1, X1, X0
	VMAXPS X0, X1, X1
	VSHUFPS $0xb1, X1, X1, X0
	VMAXPS X0, X1, X1
	VMOVSS X1, ret+16(FP)
	VZEROUPPER
	RET

// GATE: Z0 = 1 + exp(-gate), with gate in Z8; Z9 is 0.
#define GATE \
	VSUBPS Z8, Z9, Z0 \
	EXP \
	VADDPS ONE, Z0, Z0

// func swiglu16(n int, h, gate, up *float32)
TEXT ·swiglu16(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	MOVQ h+8(FP), DI
	MOVQ gate+16(FP), SI
	MOVQ up+24(FP), DX
	NUMBERS
	VPXORQ Z9, Z9, Z9
	SUBQ $16, CX
	JLT  rest

loop:
	VMOVUPS (SI), Z8
	GATE
	VDIVPS Z0, Z8, Z0
	VMULPS (DX), Z0, Z0
	VMOVUPS Z0, (DI)
	ADDQ $64, SI
	ADDQ $64, DI
	ADDQ $64, DX
	SUBQ $16, CX
	JGE  loop

rest:
	ADDQ $16, CX
	JEQ  done
	MASK
	VMOVUPS.Z (SI), K1, Z8
	VMOVUPS.Z (DX), K1, Z7
	GATE
	VDIVPS Z0, Z8, Z0
	VMULPS Z7, Z0, Z0
	VMOVUPS Z0, K1, (DI)

done:
	VZEROUPPER
	RET

// SLOPES: with gate in Z8, up in Z7 and dh in Z6, Z1 = dgate and Z0 = dup.
#define SLOPES \
	GATE \
	VDIVPS Z0, ONE, Z0 \
	VSUBPS Z0, ONE, Z1 \
	VMULPS Z1, Z8, Z1 \
	VADDPS ONE, Z1, Z1 \
	VMULPS Z0, Z1, Z1 \
	VMULPS Z0, Z8, Z0 \
	VMULPS Z7, Z6, Z2 \
	VMULPS Z2, Z1, Z1 \
	VMULPS Z6, Z0, Z0

// func swigluBackward16(n int, dgate, dup, dh, gate, up *float32)
TEXT ·swigluBackward16(SB), NOSPLIT, $0-48
	MOVQ n+0(FP), CX
	MOVQ dgate+8(FP), DI
	MOVQ dup+16(FP), R9
	MOVQ dh+24(FP), R8
	MOVQ gate+32(FP), SI
	MOVQ up+40(FP), DX
	NUMBERS
	VPXORQ Z9, Z9, Z9
	SUBQ $16, CX
	JLT  rest

loop:
	VMOVUPS (SI), Z8
	VMOVUPS (DX), Z7
	VMOVUPS (R8), Z6
	SLOPES
	VMOVUPS Z1, (DI)
	VMOVUPS Z0, (R9)
	ADDQ $64, SI
	ADDQ $64, DI
	ADDQ $64, DX
	ADDQ $64, R8
	ADDQ $64, R9
	SUBQ $16, CX
	JGE  loop

rest:
	ADDQ $16, CX
	JEQ  done
	MASK
	VMOVUPS.Z (SI), K1, Z8
	VMOVUPS.Z (DX), K1, Z7
	VMOVUPS.Z (R8), K1, Z6
	SLOPES
	VMOVUPS Z1, K1, (DI)
	VMOVUPS Z0, K1, (R9)

done:
	VZEROUPPER
	RET
