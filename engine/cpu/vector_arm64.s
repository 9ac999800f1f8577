#include "textflag.h"

// What vector_amd64.s has, in NEON: eight lanes are two registers, d and d+1. n is a positive multiple of 8; nothing is fused. See vector.go for what each
// computes.

// Go's assembler knows no vector arithmetic but the fused: d = n op m, by the numbers of the registers.
#define OP(code, d, n, m) WORD $(code | ((m)<<16) | ((n)<<5) | (d))
#define FADD(d, n, m) OP(0x4E20D400, d, n, m)
#define FSUB(d, n, m) OP(0x4EA0D400, d, n, m)
#define FMUL(d, n, m) OP(0x6E20DC00, d, n, m)
#define FDIV(d, n, m) OP(0x6E20FC00, d, n, m)
#define FMAX(d, n, m) OP(0x4E20F400, d, n, m)
#define FMIN(d, n, m) OP(0x4EA0F400, d, n, m)
#define FCMGE(d, n, m) OP(0x6E20E400, d, n, m)
#define FCMGT(d, n, m) OP(0x6EA0E400, d, n, m)
#define MOVE(d, n) OP(0x4EA01C00, d, n, n)
#define HALVE(d, n) OP(0x4F3F0400, d, n, 0) // integers: SSHR $1

// Both registers; those in ALL have one factor for all lanes, s.
#define ADD2(d, n, m) \
	FADD(d, n, m) \
	FADD(d+1, n+1, m+1)

#define SUB2(d, n, m) \
	FSUB(d, n, m) \
	FSUB(d+1, n+1, m+1)

#define MUL2(d, n, m) \
	FMUL(d, n, m) \
	FMUL(d+1, n+1, m+1)

#define ADDALL(d, n, s) \
	FADD(d, n, s) \
	FADD(d+1, n+1, s)

#define SUBALL(d, n, s) \
	FSUB(d, n, s) \
	FSUB(d+1, n+1, s)

#define MULALL(d, n, s) \
	FMUL(d, n, s) \
	FMUL(d+1, n+1, s)

DATA numbers<>+0(SB)/4, $(-87.33654)
DATA numbers<>+4(SB)/4, $88.72283
DATA numbers<>+8(SB)/4, $0x7f800000
DATA numbers<>+12(SB)/4, $1.44269504
DATA numbers<>+16(SB)/4, $12582912.0
DATA numbers<>+20(SB)/4, $0x4b400000
DATA numbers<>+24(SB)/4, $127
DATA numbers<>+28(SB)/4, $0.693359375
DATA numbers<>+32(SB)/4, $(-2.12194440e-4)
DATA numbers<>+36(SB)/4, $1.98412698412698412698e-4
DATA numbers<>+40(SB)/4, $1.38888888888888888889e-3
DATA numbers<>+44(SB)/4, $8.33333333333333333333e-3
DATA numbers<>+48(SB)/4, $4.16666666666666666667e-2
DATA numbers<>+52(SB)/4, $1.66666666666666666667e-1
DATA numbers<>+56(SB)/4, $0.5
DATA numbers<>+60(SB)/4, $1.0
GLOBL numbers<>(SB), RODATA|NOPTR, $64

#define ONE 31
#define ZERO 15

// NUMBERS loads what EXP needs: V16 to V31 in the order above, and V15 = 0. Clobbers R9.
#define NUMBERS \
	MOVD $numbers<>(SB), R9 \
	VLD1R.P 4(R9), [V16.S4] \
	VLD1R.P 4(R9), [V17.S4] \
	VLD1R.P 4(R9), [V18.S4] \
	VLD1R.P 4(R9), [V19.S4] \
	VLD1R.P 4(R9), [V20.S4] \
	VLD1R.P 4(R9), [V21.S4] \
	VLD1R.P 4(R9), [V22.S4] \
	VLD1R.P 4(R9), [V23.S4] \
	VLD1R.P 4(R9), [V24.S4] \
	VLD1R.P 4(R9), [V25.S4] \
	VLD1R.P 4(R9), [V26.S4] \
	VLD1R.P 4(R9), [V27.S4] \
	VLD1R.P 4(R9), [V28.S4] \
	VLD1R.P 4(R9), [V29.S4] \
	VLD1R.P 4(R9), [V30.S4] \
	VLD1R (R9), [V31.S4] \
	VEOR V15.B16, V15.B16, V15.B16

// HORNER: p = p*r + c, with r in V2 and p in V4.
#define HORNER(c) \
	FMUL(4, 4, 2) \
	FADD(4, 4, c)

// EXP: x = exp(x), as exp32 of vector.go. Clobbers V2 to V5. NaN passes.
#define EXP(x) \
	FMAX(2, x, 16) \
	FMIN(2, 2, 17) \
	FMUL(3, 2, 19) \
	FADD(3, 3, 20) \
	FSUB(4, 3, 20) \
	FMUL(5, 4, 23) \
	FSUB(2, 2, 5) \
	FMUL(5, 4, 24) \
	FSUB(2, 2, 5) \
	FMUL(4, 25, 2) \
	FADD(4, 4, 26) \
	HORNER(27) \
	HORNER(28) \
	HORNER(29) \
	HORNER(30) \
	HORNER(31) \
	HORNER(31) \
	VSUB V21.S4, V3.S4, V3.S4 \
	HALVE(5, 3) \
	VSUB V5.S4, V3.S4, V3.S4 \
	VADD V22.S4, V5.S4, V5.S4 \
	VADD V22.S4, V3.S4, V3.S4 \
	VSHL $23, V5.S4, V5.S4 \
	VSHL $23, V3.S4, V3.S4 \
	FMUL(4, 4, 5) \
	FMUL(4, 4, 3) \
	FCMGE(5, 16, x) \
	VBIT V5.B16, V15.B16, V4.B16 \
	FCMGT(5, x, 17) \
	VBIT V5.B16, V18.B16, V4.B16 \
	MOVE(x, 4)

// ALL broadcasts an argument.
#define ALL(arg, f, v) \
	FMOVS arg, f \
	VDUP v.S[0], v.S4

#define NEXT \
	SUBS $8, R0 \
	BNE loop

// func exp8(n int, dst, src *float32, sub, scale, off float32, lanes *[8]float32)
TEXT ·exp8(SB), NOSPLIT, $0-48
	MOVD n+0(FP), R0
	MOVD dst+8(FP), R1
	MOVD src+16(FP), R2
	ALL(sub+24(FP), F10, V10)
	ALL(scale+28(FP), F11, V11)
	ALL(off+32(FP), F12, V12)
	MOVD lanes+40(FP), R3
	NUMBERS
	VLD1 (R3), [V13.S4, V14.S4]

loop:
	VLD1.P 32(R2), [V0.S4, V1.S4]
	SUBALL(0, 0, 10)
	MULALL(0, 0, 11)
	SUBALL(0, 0, 12)
	EXP(0)
	EXP(1)
	VST1.P [V0.S4, V1.S4], 32(R1)
	ADD2(13, 13, 0)
	NEXT
	VST1 [V13.S4, V14.S4], (R3)
	RET

// func max8(n int, x *float32, lanes *[8]float32): NaN is not greater than anything.
TEXT ·max8(SB), NOSPLIT, $0-24
	MOVD n+0(FP), R0
	MOVD x+8(FP), R1
	MOVD lanes+16(FP), R2
	VLD1 (R2), [V2.S4, V3.S4]

loop:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	FCMGT(4, 0, 2)
	FCMGT(5, 1, 3)
	VBIT V4.B16, V0.B16, V2.B16
	VBIT V5.B16, V1.B16, V3.B16
	NEXT
	VST1 [V2.S4, V3.S4], (R2)
	RET

// func scale8(n int, x *float32, f float32)
TEXT ·scale8(SB), NOSPLIT, $0-20
	MOVD n+0(FP), R0
	MOVD x+8(FP), R1
	ALL(f+16(FP), F2, V2)

loop:
	VLD1 (R1), [V0.S4, V1.S4]
	MULALL(0, 0, 2)
	VST1.P [V0.S4, V1.S4], 32(R1)
	NEXT
	RET

// func dot8(n int, x, y *float32, lanes *[8]float32)
TEXT ·dot8(SB), NOSPLIT, $0-32
	MOVD n+0(FP), R0
	MOVD x+8(FP), R1
	MOVD y+16(FP), R2
	MOVD lanes+24(FP), R3
	VLD1 (R3), [V4.S4, V5.S4]

loop:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	VLD1.P 32(R2), [V2.S4, V3.S4]
	MUL2(0, 0, 2)
	ADD2(4, 4, 0)
	NEXT
	VST1 [V4.S4, V5.S4], (R3)
	RET

// func triple8(n int, x, y, z *float32, lanes *[8]float32)
TEXT ·triple8(SB), NOSPLIT, $0-40
	MOVD n+0(FP), R0
	MOVD x+8(FP), R1
	MOVD y+16(FP), R2
	MOVD z+24(FP), R3
	MOVD lanes+32(FP), R4
	VLD1 (R4), [V6.S4, V7.S4]

loop:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	VLD1.P 32(R2), [V2.S4, V3.S4]
	VLD1.P 32(R3), [V4.S4, V5.S4]
	MUL2(0, 0, 2)
	MUL2(0, 0, 4)
	ADD2(6, 6, 0)
	NEXT
	VST1 [V6.S4, V7.S4], (R4)
	RET

// func axpy8(n int, a float32, x, y *float32)
TEXT ·axpy8(SB), NOSPLIT, $0-32
	MOVD n+0(FP), R0
	ALL(a+8(FP), F4, V4)
	MOVD x+16(FP), R1
	MOVD y+24(FP), R2

loop:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	VLD1 (R2), [V2.S4, V3.S4]
	MULALL(0, 0, 4)
	ADD2(2, 2, 0)
	VST1.P [V2.S4, V3.S4], 32(R2)
	NEXT
	RET

// func norm8(n int, y, x, w *float32, s float32)
TEXT ·norm8(SB), NOSPLIT, $0-36
	MOVD n+0(FP), R0
	MOVD y+8(FP), R1
	MOVD x+16(FP), R2
	MOVD w+24(FP), R3
	ALL(s+32(FP), F4, V4)

loop:
	VLD1.P 32(R2), [V0.S4, V1.S4]
	VLD1.P 32(R3), [V2.S4, V3.S4]
	MULALL(0, 0, 4)
	MUL2(0, 0, 2)
	VST1.P [V0.S4, V1.S4], 32(R1)
	NEXT
	RET

// func normBackward8(n int, dx, dy, x, w *float32, s, f float32)
TEXT ·normBackward8(SB), NOSPLIT, $0-48
	MOVD n+0(FP), R0
	MOVD dx+8(FP), R1
	MOVD dy+16(FP), R2
	MOVD x+24(FP), R3
	MOVD w+32(FP), R4
	ALL(s+40(FP), F8, V8)
	ALL(f+44(FP), F9, V9)

loop:
	VLD1.P 32(R2), [V0.S4, V1.S4]
	VLD1.P 32(R4), [V2.S4, V3.S4]
	VLD1.P 32(R3), [V4.S4, V5.S4]
	VLD1 (R1), [V6.S4, V7.S4]
	MUL2(0, 0, 2)
	MULALL(0, 0, 8)
	MULALL(4, 4, 9)
	SUB2(0, 0, 4)
	ADD2(6, 6, 0)
	VST1.P [V6.S4, V7.S4], 32(R1)
	NEXT
	RET

// func normWeight8(n int, dw, dy, x *float32, s float32)
TEXT ·normWeight8(SB), NOSPLIT, $0-36
	MOVD n+0(FP), R0
	MOVD dw+8(FP), R1
	MOVD dy+16(FP), R2
	MOVD x+24(FP), R3
	ALL(s+32(FP), F6, V6)

loop:
	VLD1.P 32(R3), [V0.S4, V1.S4]
	VLD1.P 32(R2), [V2.S4, V3.S4]
	VLD1 (R1), [V4.S4, V5.S4]
	MULALL(0, 0, 6)
	MUL2(0, 0, 2)
	ADD2(4, 4, 0)
	VST1.P [V4.S4, V5.S4], 32(R1)
	NEXT
	RET

// func softmaxBackward8(n int, ds, p *float32, scale, sum float32)
TEXT ·softmaxBackward8(SB), NOSPLIT, $0-32
	MOVD n+0(FP), R0
	MOVD ds+8(FP), R1
	MOVD p+16(FP), R2
	ALL(scale+24(FP), F4, V4)
	ALL(sum+28(FP), F5, V5)

loop:
	VLD1 (R1), [V0.S4, V1.S4]
	VLD1.P 32(R2), [V2.S4, V3.S4]
	MULALL(2, 2, 4)
	SUBALL(0, 0, 5)
	MUL2(0, 0, 2)
	VST1.P [V0.S4, V1.S4], 32(R1)
	NEXT
	RET

// SIGMOID_DENOMINATOR: V0 and V1 = 1 + exp(-gate), with gate in V8 and V9.
#define SIGMOID_DENOMINATOR \
	FSUB(0, ZERO, 8) \
	FSUB(1, ZERO, 9) \
	EXP(0) \
	EXP(1) \
	ADDALL(0, 0, ONE)

// func swiglu8(n int, h, gate, up *float32)
TEXT ·swiglu8(SB), NOSPLIT, $0-32
	MOVD n+0(FP), R0
	MOVD h+8(FP), R1
	MOVD gate+16(FP), R2
	MOVD up+24(FP), R3
	NUMBERS

loop:
	VLD1.P 32(R2), [V8.S4, V9.S4]
	SIGMOID_DENOMINATOR
	VLD1.P 32(R3), [V6.S4, V7.S4]
	FDIV(0, 8, 0)
	FDIV(1, 9, 1)
	MUL2(0, 0, 6)
	VST1.P [V0.S4, V1.S4], 32(R1)
	NEXT
	RET

// func swigluBackward8(n int, dgate, dup, dh, gate, up *float32)
TEXT ·swigluBackward8(SB), NOSPLIT, $0-48
	MOVD n+0(FP), R0
	MOVD dgate+8(FP), R1
	MOVD dup+16(FP), R2
	MOVD dh+24(FP), R3
	MOVD gate+32(FP), R4
	MOVD up+40(FP), R5
	NUMBERS

loop:
	VLD1.P 32(R4), [V8.S4, V9.S4]
	SIGMOID_DENOMINATOR
	VLD1.P 32(R3), [V6.S4, V7.S4]
	VLD1.P 32(R5), [V10.S4, V11.S4]
	FDIV(0, ONE, 0) // s
	FDIV(1, ONE, 1)
	FSUB(2, ONE, 0) // 1-s
	FSUB(3, ONE, 1)
	MUL2(2, 8, 2)
	ADDALL(2, 2, ONE) // 1 + gate*(1-s)
	MUL2(2, 0, 2)
	MUL2(0, 8, 0) // gate*s
	MUL2(10, 6, 10)
	MUL2(2, 10, 2)
	MUL2(0, 6, 0)
	VST1.P [V2.S4, V3.S4], 32(R1)
	VST1.P [V0.S4, V1.S4], 32(R2)
	NEXT
	RET

// func rope8(rows, h int, x *float32, ld int, cos, sin *float32, sign float32): h is a multiple of 8.
TEXT ·rope8(SB), NOSPLIT, $0-52
	MOVD rows+0(FP), R1
	MOVD h+8(FP), R2
	MOVD x+16(FP), R3
	MOVD ld+24(FP), R4
	MOVD cos+32(FP), R5
	MOVD sin+40(FP), R6
	ALL(sign+48(FP), F8, V8)
	LSL $2, R4

row:
	MOVD R3, R7
	ADD R2<<2, R3, R8
	MOVD R2, R0

loop:
	VLD1 (R7), [V0.S4, V1.S4]
	VLD1 (R8), [V2.S4, V3.S4]
	VLD1.P 32(R5), [V4.S4, V5.S4]
	VLD1.P 32(R6), [V6.S4, V7.S4]
	MULALL(6, 6, 8)
	MUL2(10, 0, 4)
	MUL2(12, 2, 6)
	SUB2(10, 10, 12)
	MUL2(2, 2, 4)
	MUL2(0, 0, 6)
	ADD2(2, 2, 0)
	VST1.P [V10.S4, V11.S4], 32(R7)
	VST1.P [V2.S4, V3.S4], 32(R8)
	NEXT

	ADD R4, R3
	SUBS $1, R1
	BNE row
	RET

// func copy8(k int, dst, src *float32, ld int): dst is [k][8] without gaps.
TEXT ·copy8(SB), NOSPLIT, $0-32
	MOVD k+0(FP), R0
	MOVD dst+8(FP), R1
	MOVD src+16(FP), R2
	MOVD ld+24(FP), R3
	LSL $2, R3

loop:
	VLD1 (R2), [V0.S4, V1.S4]
	VST1.P [V0.S4, V1.S4], 32(R1)
	ADD R3, R2
	SUBS $1, R0
	BNE loop
	RET

// func spread(n, w int, dst *float32, step int, src *float32): dst[i*step+j] = src[i*w+j] for i < n, j < w; w is a multiple of 8.
TEXT ·spread(SB), NOSPLIT, $0-40
	MOVD n+0(FP), R1
	MOVD w+8(FP), R2
	MOVD dst+16(FP), R3
	MOVD step+24(FP), R4
	MOVD src+32(FP), R5
	SUB R2, R4
	LSL $2, R4

group:
	MOVD R2, R0

loop:
	VLD1.P 32(R5), [V0.S4, V1.S4]
	VST1.P [V0.S4, V1.S4], 32(R3)
	NEXT
	ADD R4, R3
	SUBS $1, R1
	BNE group
	RET

// DOTS adds the products of x, in V0 and V1, with 8 numbers of a row.
#define DOTS(row, sum) \
	VLD1.P 32(row), [V2.S4, V3.S4] \
	MUL2(2, 0, 2) \
	ADD2(sum, sum, 2)

// func dots8(n int, x, y *float32, ld int, lanes *[4][8]float32): four rows of y, ld apart, against one x.
TEXT ·dots8(SB), NOSPLIT, $0-40
	MOVD n+0(FP), R0
	MOVD x+8(FP), R1
	MOVD y+16(FP), R2
	MOVD ld+24(FP), R3
	MOVD lanes+32(FP), R7
	ADD R3<<2, R2, R4
	ADD R3<<2, R4, R5
	ADD R3<<2, R5, R6
	VEOR V4.B16, V4.B16, V4.B16
	VEOR V5.B16, V5.B16, V5.B16
	VEOR V6.B16, V6.B16, V6.B16
	VEOR V7.B16, V7.B16, V7.B16
	VEOR V8.B16, V8.B16, V8.B16
	VEOR V9.B16, V9.B16, V9.B16
	VEOR V10.B16, V10.B16, V10.B16
	VEOR V11.B16, V11.B16, V11.B16

loop:
	VLD1.P 32(R1), [V0.S4, V1.S4]
	DOTS(R2, 4)
	DOTS(R4, 6)
	DOTS(R5, 8)
	DOTS(R6, 10)
	NEXT
	VST1.P [V4.S4, V5.S4, V6.S4, V7.S4], 64(R7)
	VST1 [V8.S4, V9.S4, V10.S4, V11.S4], (R7)
	RET
