#include "textflag.h"

// func accumulateLanes(v *int64, grad *float32, groups int, scale, small float64) int
//
// v += round(g*scale), as accumulate does it with nearestSmall, for groups of 8; ends before the first that has a value not below small.
TEXT ·accumulateLanes(SB), NOSPLIT, $0-48
	MOVQ v+0(FP), DI
	MOVQ grad+8(FP), SI
	MOVQ groups+16(FP), CX
	VBROADCASTSD scale+24(FP), Z8
	VBROADCASTSD small+32(FP), Z10
	MOVQ $0x7fffffffffffffff, AX
	VPBROADCASTQ AX, Z9
	MOVQ $0x4338000000000000, AX // 1.5 * 2^52
	VPBROADCASTQ AX, Z11
	MOVQ CX, DX

loop:
	VCVTPS2PD (SI), Z0
	VMULPD Z8, Z0, Z0
	VANDPD Z9, Z0, Z1
	VCMPPD $1, Z10, Z1, K1
	KMOVB K1, AX
	CMPB AX, $0xff
	JNE  done
	VADDPD Z11, Z0, Z0
	VPSUBQ Z11, Z0, Z0
	VPADDQ (DI), Z0, Z0
	VMOVDQU64 Z0, (DI)
	ADDQ $32, SI
	ADDQ $64, DI
	DECQ CX
	JNZ  loop

done:
	SUBQ CX, DX
	MOVQ DX, ret+40(FP)
	VZEROUPPER
	RET

// func roundLanes(grad *float32, sum *int64, groups int, unit float32): grad = float32(sum) * unit.
TEXT ·roundLanes(SB), NOSPLIT, $0-28
	MOVQ grad+0(FP), DI
	MOVQ sum+8(FP), SI
	MOVQ groups+16(FP), CX
	VBROADCASTSS unit+24(FP), Y8

loop:
	VCVTQQ2PS (SI), Y0
	VMULPS Y8, Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $64, SI
	ADDQ $32, DI
	DECQ CX
	JNZ  loop
	VZEROUPPER
	RET
