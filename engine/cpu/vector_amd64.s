#include "textflag.h"

// Elementwise operations and sums, eight lanes at a time (AVX2). n is a positive multiple of 8. No multiply-add is fused, so that
// the Go twins in vector.go give the same bits.

#define CONST(name, value) \
	DATA name<>+0(SB)/4, value \
	DATA name<>+4(SB)/4, value \
	DATA name<>+8(SB)/4, value \
	DATA name<>+12(SB)/4, value \
	DATA name<>+16(SB)/4, value \
	DATA name<>+20(SB)/4, value \
	DATA name<>+24(SB)/4, value \
	DATA name<>+28(SB)/4, value \
	GLOBL name<>(SB), RODATA|NOPTR, $32

CONST(lowest, $(-87.33654))
CONST(highest, $88.72283)
CONST(infinity, $0x7f800000)
CONST(log2e, $1.44269504)
CONST(magic, $12582912.0)
CONST(magicbits, $0x4b400000)
CONST(bias, $127)
CONST(ln2high, $0.693359375)
CONST(ln2low, $(-2.12194440e-4))
CONST(c7, $1.98412698412698412698e-4)
CONST(c6, $1.38888888888888888889e-3)
CONST(c5, $8.33333333333333333333e-3)
CONST(c4, $4.16666666666666666667e-2)
CONST(c3, $1.66666666666666666667e-1)
CONST(half, $0.5)
CONST(one, $1.0)

// HORNER: p = p*r + c, with r in Y1 and p in Y3.
#define HORNER(c) \
	VMULPS Y1, Y3, Y3 \
	VADDPS c<>(SB), Y3, Y3

// EXP: Y0 = exp(Y0), as exp32 of vector.go. Clobbers Y1 to Y4. Operands of max and min are ordered so that NaN passes.
#define EXP \
	VMOVUPS lowest<>(SB), Y4 \
	VMAXPS Y0, Y4, Y1 \
	VMOVUPS highest<>(SB), Y4 \
	VMINPS Y1, Y4, Y1 \
	VMULPS log2e<>(SB), Y1, Y2 \
	VADDPS magic<>(SB), Y2, Y2 \
	VSUBPS magic<>(SB), Y2, Y3 \
	VMULPS ln2high<>(SB), Y3, Y4 \
	VSUBPS Y4, Y1, Y1 \
	VMULPS ln2low<>(SB), Y3, Y4 \
	VSUBPS Y4, Y1, Y1 \
	VMOVUPS c7<>(SB), Y3 \
	HORNER(c6) \
	HORNER(c5) \
	HORNER(c4) \
	HORNER(c3) \
	HORNER(half) \
	HORNER(one) \
	HORNER(one) \
	VPSUBD magicbits<>(SB), Y2, Y2 \
	VPSRAD $1, Y2, Y4 \
	VPSUBD Y4, Y2, Y2 \
	VPADDD bias<>(SB), Y4, Y4 \
	VPADDD bias<>(SB), Y2, Y2 \
	VPSLLD $23, Y4, Y4 \
	VPSLLD $23, Y2, Y2 \
	VMULPS Y4, Y3, Y3 \
	VMULPS Y2, Y3, Y3 \
	VCMPPS $22, lowest<>(SB), Y0, Y4 \
	VANDPS Y4, Y3, Y3 \
	VCMPPS $30, highest<>(SB), Y0, Y4 \
	VBLENDVPS Y4, infinity<>(SB), Y3, Y0

// func exp8(n int, dst, src *float32, sub, scale, off float32, lanes *[8]float32)
TEXT ·exp8(SB), NOSPLIT, $0-48
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	VBROADCASTSS sub+24(FP), Y10
	VBROADCASTSS scale+28(FP), Y11
	VBROADCASTSS off+32(FP), Y12
	MOVQ lanes+40(FP), DX
	VMOVUPS (DX), Y13

loop:
	VMOVUPS (SI), Y0
	VSUBPS Y10, Y0, Y0
	VMULPS Y11, Y0, Y0
	VSUBPS Y12, Y0, Y0
	EXP
	VMOVUPS Y0, (DI)
	VADDPS Y0, Y13, Y13
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VMOVUPS Y13, (DX)
	VZEROUPPER
	RET

// func max8(n int, x *float32, lanes *[8]float32)
TEXT ·max8(SB), NOSPLIT, $0-24
	MOVQ n+0(FP), CX
	MOVQ x+8(FP), SI
	MOVQ lanes+16(FP), DX
	VMOVUPS (DX), Y1

loop:
	VMOVUPS (SI), Y0
	VMAXPS Y1, Y0, Y1
	ADDQ $32, SI
	SUBQ $8, CX
	JNZ  loop
	VMOVUPS Y1, (DX)
	VZEROUPPER
	RET

// func scale8(n int, x *float32, f float32)
TEXT ·scale8(SB), NOSPLIT, $0-20
	MOVQ n+0(FP), CX
	MOVQ x+8(FP), SI
	VBROADCASTSS f+16(FP), Y1

loop:
	VMULPS (SI), Y1, Y0
	VMOVUPS Y0, (SI)
	ADDQ $32, SI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func dot8(n int, x, y *float32, lanes *[8]float32)
TEXT ·dot8(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DI
	MOVQ lanes+24(FP), DX
	VMOVUPS (DX), Y1

loop:
	VMOVUPS (SI), Y0
	VMULPS (DI), Y0, Y0
	VADDPS Y0, Y1, Y1
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VMOVUPS Y1, (DX)
	VZEROUPPER
	RET

// func triple8(n int, x, y, z *float32, lanes *[8]float32)
TEXT ·triple8(SB), NOSPLIT, $0-40
	MOVQ n+0(FP), CX
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DI
	MOVQ z+24(FP), R8
	MOVQ lanes+32(FP), DX
	VMOVUPS (DX), Y1

loop:
	VMOVUPS (SI), Y0
	VMULPS (DI), Y0, Y0
	VMULPS (R8), Y0, Y0
	VADDPS Y0, Y1, Y1
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, R8
	SUBQ $8, CX
	JNZ  loop
	VMOVUPS Y1, (DX)
	VZEROUPPER
	RET

// func axpy8(n int, a float32, x, y *float32)
TEXT ·axpy8(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	VBROADCASTSS a+8(FP), Y1
	MOVQ x+16(FP), SI
	MOVQ y+24(FP), DI

loop:
	VMULPS (SI), Y1, Y0
	VADDPS (DI), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func norm8(n int, y, x, w *float32, s float32)
TEXT ·norm8(SB), NOSPLIT, $0-36
	MOVQ n+0(FP), CX
	MOVQ y+8(FP), DI
	MOVQ x+16(FP), SI
	MOVQ w+24(FP), R8
	VBROADCASTSS s+32(FP), Y1

loop:
	VMULPS (SI), Y1, Y0
	VMULPS (R8), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, R8
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func normBackward8(n int, dx, dy, x, w *float32, s, f float32)
TEXT ·normBackward8(SB), NOSPLIT, $0-48
	MOVQ n+0(FP), CX
	MOVQ dx+8(FP), DI
	MOVQ dy+16(FP), DX
	MOVQ x+24(FP), SI
	MOVQ w+32(FP), R8
	VBROADCASTSS s+40(FP), Y4
	VBROADCASTSS f+44(FP), Y5

loop:
	VMOVUPS (DX), Y0
	VMULPS (R8), Y0, Y0
	VMULPS Y4, Y0, Y0
	VMULPS (SI), Y5, Y1
	VSUBPS Y1, Y0, Y0
	VADDPS (DI), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, DX
	ADDQ $32, R8
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func normWeight8(n int, dw, dy, x *float32, s float32)
TEXT ·normWeight8(SB), NOSPLIT, $0-36
	MOVQ n+0(FP), CX
	MOVQ dw+8(FP), DI
	MOVQ dy+16(FP), DX
	MOVQ x+24(FP), SI
	VBROADCASTSS s+32(FP), Y1

loop:
	VMULPS (SI), Y1, Y0
	VMULPS (DX), Y0, Y0
	VADDPS (DI), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func softmaxBackward8(n int, ds, p *float32, scale, sum float32)
TEXT ·softmaxBackward8(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	MOVQ ds+8(FP), DI
	MOVQ p+16(FP), SI
	VBROADCASTSS scale+24(FP), Y2
	VBROADCASTSS sum+28(FP), Y3

loop:
	VMULPS (SI), Y2, Y0
	VMOVUPS (DI), Y1
	VSUBPS Y3, Y1, Y1
	VMULPS Y1, Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// SIGMOID_DENOMINATOR: Y0 = 1 + exp(-gate), with gate in Y8.
#define SIGMOID_DENOMINATOR \
	VXORPS Y0, Y0, Y0 \
	VSUBPS Y8, Y0, Y0 \
	EXP \
	VADDPS one<>(SB), Y0, Y0

// func swiglu8(n int, h, gate, up *float32)
TEXT ·swiglu8(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	MOVQ h+8(FP), DI
	MOVQ gate+16(FP), SI
	MOVQ up+24(FP), DX

loop:
	VMOVUPS (SI), Y8
	SIGMOID_DENOMINATOR
	VDIVPS Y0, Y8, Y0
	VMULPS (DX), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func swigluBackward8(n int, dgate, dup, dh, gate, up *float32)
TEXT ·swigluBackward8(SB), NOSPLIT, $0-48
	MOVQ n+0(FP), CX
	MOVQ dgate+8(FP), DI
	MOVQ dup+16(FP), R9
	MOVQ dh+24(FP), R8
	MOVQ gate+32(FP), SI
	MOVQ up+40(FP), DX
	VMOVUPS one<>(SB), Y10

loop:
	VMOVUPS (SI), Y8
	SIGMOID_DENOMINATOR
	VDIVPS Y0, Y10, Y0     // s
	VSUBPS Y0, Y10, Y1     // 1-s
	VMULPS Y1, Y8, Y1
	VADDPS Y10, Y1, Y1     // 1 + gate*(1-s)
	VMULPS Y0, Y1, Y1
	VMULPS Y0, Y8, Y0      // gate*s
	VMOVUPS (R8), Y9
	VMULPS (DX), Y9, Y2
	VMULPS Y2, Y1, Y1
	VMULPS Y9, Y0, Y0
	VMOVUPS Y1, (DI)
	VMOVUPS Y0, (R9)
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, DX
	ADDQ $32, R8
	ADDQ $32, R9
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func rope8(rows, h int, x *float32, ld int, cos, sin *float32, sign float32): h is a multiple of 8.
TEXT ·rope8(SB), NOSPLIT, $0-52
	MOVQ rows+0(FP), R9
	MOVQ h+8(FP), R10
	MOVQ x+16(FP), R11
	MOVQ ld+24(FP), R12
	MOVQ cos+32(FP), DX
	MOVQ sin+40(FP), R8
	VBROADCASTSS sign+48(FP), Y8
	SHLQ $2, R12

row:
	MOVQ R11, DI
	LEAQ (R11)(R10*4), SI
	MOVQ R10, CX

loop:
	VMOVUPS (DI), Y0
	VMOVUPS (SI), Y1
	VMOVUPS (DX), Y2
	VMULPS (R8), Y8, Y3
	VMULPS Y2, Y0, Y4
	VMULPS Y3, Y1, Y5
	VSUBPS Y5, Y4, Y4
	VMULPS Y2, Y1, Y1
	VMULPS Y3, Y0, Y0
	VADDPS Y0, Y1, Y1
	VMOVUPS Y4, (DI)
	VMOVUPS Y1, (SI)
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, DX
	ADDQ $32, R8
	SUBQ $8, CX
	JNZ  loop

	ADDQ R12, R11
	DECQ R9
	JNZ  row
	VZEROUPPER
	RET

// func copy8(k int, dst, src *float32, ld int): dst is [k][8] without gaps.
TEXT ·copy8(SB), NOSPLIT, $0-32
	MOVQ k+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ ld+24(FP), R8
	SHLQ $2, R8

loop:
	VMOVUPS (SI), Y0
	VMOVUPS Y0, (DI)
	ADDQ R8, SI
	ADDQ $32, DI
	DECQ CX
	JNZ  loop
	VZEROUPPER
	RET

// func spread(n, w int, dst *float32, step int, src *float32): dst[i*step+j] = src[i*w+j] for i < n, j < w; w is a multiple of 16.
TEXT ·spread(SB), NOSPLIT, $0-40
	MOVQ n+0(FP), CX
	MOVQ w+8(FP), BX
	MOVQ dst+16(FP), DI
	MOVQ step+24(FP), R8
	MOVQ src+32(FP), SI
	SUBQ BX, R8
	SHLQ $2, R8

group:
	MOVQ BX, DX

loop:
	VMOVUPS (SI), Y0
	VMOVUPS 32(SI), Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $16, DX
	JNZ  loop
	ADDQ R8, DI
	DECQ CX
	JNZ  group
	VZEROUPPER
	RET

// func dots8(n int, x, y *float32, ld int, lanes *[4][8]float32): four rows of y, ld apart, against one x.
TEXT ·dots8(SB), NOSPLIT, $0-40
	MOVQ n+0(FP), CX
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DI
	MOVQ ld+24(FP), R8
	MOVQ lanes+32(FP), DX
	SHLQ $2, R8
	LEAQ (R8)(R8*2), R9
	VXORPS Y4, Y4, Y4
	VXORPS Y5, Y5, Y5
	VXORPS Y6, Y6, Y6
	VXORPS Y7, Y7, Y7

loop:
	VMOVUPS (SI), Y0
	VMULPS (DI), Y0, Y1
	VADDPS Y1, Y4, Y4
	VMULPS (DI)(R8*1), Y0, Y1
	VADDPS Y1, Y5, Y5
	VMULPS (DI)(R8*2), Y0, Y1
	VADDPS Y1, Y6, Y6
	VMULPS (DI)(R9*1), Y0, Y1
	VADDPS Y1, Y7, Y7
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VMOVUPS Y4, (DX)
	VMOVUPS Y5, 32(DX)
	VMOVUPS Y6, 64(DX)
	VMOVUPS Y7, 96(DX)
	VZEROUPPER
	RET
