#include "textflag.h"
#include "go_asm.h"

// func step8(n int, s *scalars, p, grad, m, v *float32)
//
// The loop of AdamW.Step, eight elements at a time; n is a positive multiple of 8. The same operations in the same order, nothing
// fused; vdivps and vsqrtps are correctly rounded, so the bits are those of the Go loop.
TEXT ·step8(SB), NOSPLIT, $0-48
	MOVQ n+0(FP), CX
	MOVQ s+8(FP), AX
	MOVQ p+16(FP), DI
	MOVQ grad+24(FP), SI
	MOVQ m+32(FP), R8
	MOVQ v+40(FP), R9
	VBROADCASTSS scalars_keep(AX), Y8
	VBROADCASTSS scalars_stepSize(AX), Y9
	VBROADCASTSS scalars_sqrtCorrection2(AX), Y10
	VBROADCASTSS scalars_oneMinusBeta1(AX), Y11
	VBROADCASTSS scalars_beta2(AX), Y12
	VBROADCASTSS scalars_oneMinusBeta2(AX), Y13
	VBROADCASTSS scalars_eps(AX), Y14

loop:
	VMOVUPS (SI), Y0
	VMOVUPS (R8), Y1
	VSUBPS Y1, Y0, Y2
	VMULPS Y2, Y11, Y2
	VADDPS Y2, Y1, Y1      // m
	VMULPS Y0, Y13, Y2
	VMULPS Y0, Y2, Y2
	VMULPS (R9), Y12, Y3
	VADDPS Y2, Y3, Y3      // v
	VMOVUPS Y1, (R8)
	VMOVUPS Y3, (R9)
	VSQRTPS Y3, Y3
	VDIVPS Y10, Y3, Y3
	VADDPS Y14, Y3, Y3     // denominator
	VMULPS Y1, Y9, Y1
	VDIVPS Y3, Y1, Y1
	VMULPS (DI), Y8, Y0
	VSUBPS Y1, Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, DI
	ADDQ $32, SI
	ADDQ $32, R8
	ADDQ $32, R9
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func stepEight(n int, s *scalars8, p, grad, m, v *float32)
//
// The loop of scalars8.stepEach, likewise. What is computed of a gradient that is not finite is masked out.
TEXT ·stepEight(SB), NOSPLIT, $0-48
	MOVQ n+0(FP), CX
	MOVQ s+8(FP), AX
	MOVQ p+16(FP), DI
	MOVQ grad+24(FP), SI
	MOVQ m+32(FP), R8
	MOVQ v+40(FP), R9
	VBROADCASTSS scalars8_beta1(AX), Y8
	VBROADCASTSS scalars8_beta2(AX), Y9
	VBROADCASTSS scalars8_oneMinusBeta1(AX), Y10
	VBROADCASTSS scalars8_oneMinusBeta2(AX), Y11
	VBROADCASTSS scalars8_stepSize(AX), Y12
	VBROADCASTSS scalars8_eps(AX), Y13
	VBROADCASTSS scalars8_keep(AX), Y14
	VXORPS Y15, Y15, Y15

eight:
	VMOVUPS (SI), Y0
	VMOVUPS (DI), Y5
	VSUBPS Y0, Y0, Y4
	VCMPPS $0, Y15, Y4, Y4  // all ones where the gradient is finite
	VMULPS (R9), Y9, Y2
	VMULPS Y0, Y11, Y3
	VMULPS Y0, Y3, Y3
	VADDPS Y3, Y2, Y2       // v
	VMULPS (R8), Y8, Y1
	VMULPS Y0, Y10, Y3
	VADDPS Y3, Y1, Y1       // m
	VANDPS Y4, Y1, Y3
	VMOVUPS Y3, (R8)
	VANDPS Y4, Y2, Y3
	VMOVUPS Y3, (R9)
	VSQRTPS Y2, Y2
	VADDPS Y13, Y2, Y2
	VDIVPS Y2, Y1, Y1
	VMULPS Y1, Y12, Y1
	VADDPS Y1, Y5, Y1
	VMULPS Y14, Y1, Y1
	VBLENDVPS Y4, Y1, Y5, Y1
	VMOVUPS Y1, (DI)
	ADDQ $32, DI
	ADDQ $32, SI
	ADDQ $32, R8
	ADDQ $32, R9
	SUBQ $8, CX
	JNZ  eight
	VZEROUPPER
	RET

// func squares4(n int, sums *[4]float64, grad *float32): n is a positive multiple of 4.
TEXT ·squares4(SB), NOSPLIT, $0-24
	MOVQ n+0(FP), CX
	MOVQ sums+8(FP), DI
	MOVQ grad+16(FP), SI
	VMOVUPD (DI), Y1

squares:
	VCVTPS2PD (SI), Y0
	VMULPD Y0, Y0, Y0
	VADDPD Y0, Y1, Y1
	ADDQ $16, SI
	SUBQ $4, CX
	JNZ  squares
	VMOVUPD Y1, (DI)
	VZEROUPPER
	RET

// func scale8(n int, grad *float32, f float32): n is a positive multiple of 8.
TEXT ·scale8(SB), NOSPLIT, $0-20
	MOVQ n+0(FP), CX
	MOVQ grad+8(FP), SI
	VBROADCASTSS f+16(FP), Y1

scale:
	VMULPS (SI), Y1, Y0
	VMOVUPS Y0, (SI)
	ADDQ $32, SI
	SUBQ $8, CX
	JNZ  scale
	VZEROUPPER
	RET
