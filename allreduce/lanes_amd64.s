#include "textflag.h"

// Offsets in struct lanes.
#define SHIFT 0
#define LEFT 64
#define SPREAD 128
#define EVEN 192
#define ODD 256
#define EVENIN 320
#define ODDIN 328
#define MASK 336
#define RIGHT 344

// gather puts 8 values, shifted to their places in Z0, together into w bytes at (DI). Z1 shifts, Z2 and Z3 say which byte comes from
// where, K1 and K2 which there are.
#define PACKGROUP \
	VPSLLVQ Z1, Z0, Z0 \
	VPERMB.Z Z0, Z2, K1, Z4 \
	VPERMB.Z Z0, Z3, K2, Z5 \
	VPORQ Z4, Z5, Z4 \
	VMOVDQU64 Z4, (DI)

#define PACKSETUP \
	VMOVDQU64 SHIFT(R8), Z1 \
	VMOVDQU64 EVEN(R8), Z2 \
	VMOVDQU64 ODD(R8), Z3 \
	KMOVQ EVENIN(R8), K1 \
	KMOVQ ODDIN(R8), K2

// func packLanes(dst *byte, v *int64, groups int, l *lanes, w int)
TEXT ·packLanes(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ v+8(FP), SI
	MOVQ groups+16(FP), CX
	MOVQ l+24(FP), R8
	MOVQ w+32(FP), R9
	PACKSETUP
	VPBROADCASTQ MASK(R8), Z8

packLoop:
	VPANDQ (SI), Z8, Z0
	PACKGROUP
	ADDQ $64, SI
	ADDQ R9, DI
	DECQ CX
	JNZ packLoop
	VZEROUPPER
	RET

// func addLanes(dst, in *int64, src *byte, groups int, l *lanes, w int)
TEXT ·addLanes(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ in+8(FP), SI
	MOVQ src+16(FP), DX
	MOVQ groups+24(FP), CX
	MOVQ l+32(FP), R8
	MOVQ w+40(FP), R9
	VMOVDQU64 LEFT(R8), Z1
	VMOVDQU64 SPREAD(R8), Z2
	VPBROADCASTQ RIGHT(R8), Z3

addLoop:
	VMOVDQU64 (DX), Z0
	VPERMB Z0, Z2, Z0
	VPSLLVQ Z1, Z0, Z0
	VPSRAVQ Z3, Z0, Z0
	VPADDQ (SI), Z0, Z0
	VMOVDQU64 Z0, (DI)
	ADDQ $64, SI
	ADDQ $64, DI
	ADDQ R9, DX
	DECQ CX
	JNZ addLoop
	VZEROUPPER
	RET

// func packDeltaLanes(dst *byte, x *float32, groups int, l *lanes, w int, base uint32)
TEXT ·packDeltaLanes(SB), NOSPLIT, $0-44
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ groups+16(FP), CX
	MOVQ l+24(FP), R8
	MOVQ w+32(FP), R9
	PACKSETUP
	MOVL base+40(FP), AX
	VMOVD AX, X7
	VPBROADCASTD X7, Y7
	MOVL $0x7fffffff, AX
	VMOVD AX, X9
	VPBROADCASTD X9, Y9
	MOVQ R9, AX
	DECQ AX
	VMOVQ AX, X6 // where the sign goes

packDeltaLoop:
	VMOVDQU (SI), Y0
	VPSRLD $31, Y0, Y10
	VPSLLD X6, Y10, Y10
	VPAND Y9, Y0, Y0
	VPSUBD Y7, Y0, Y0
	VPOR Y10, Y0, Y0
	VPMOVZXDQ Y0, Z0
	PACKGROUP
	ADDQ $32, SI
	ADDQ R9, DI
	DECQ CX
	JNZ packDeltaLoop
	VZEROUPPER
	RET

// func unpackDeltaLanes(x *float32, src *byte, groups int, l *lanes, w int, base uint32)
TEXT ·unpackDeltaLanes(SB), NOSPLIT, $0-44
	MOVQ x+0(FP), DI
	MOVQ src+8(FP), DX
	MOVQ groups+16(FP), CX
	MOVQ l+24(FP), R8
	MOVQ w+32(FP), R9
	VMOVDQU64 LEFT(R8), Z1
	VMOVDQU64 SPREAD(R8), Z2
	VPBROADCASTQ RIGHT(R8), Z3
	MOVL base+40(FP), AX
	VMOVD AX, X7
	VPBROADCASTD X7, Y7
	MOVQ MASK(R8), AX
	SHRQ $1, AX
	VMOVD AX, X9
	VPBROADCASTD X9, Y9 // of the magnitude
	MOVQ R9, AX
	DECQ AX
	VMOVQ AX, X6 // where the sign is

unpackDeltaLoop:
	VMOVDQU64 (DX), Z0
	VPERMB Z0, Z2, Z0
	VPSLLVQ Z1, Z0, Z0
	VPSRLVQ Z3, Z0, Z0
	VPMOVQD Z0, Y0
	VPSRLD X6, Y0, Y10
	VPSLLD $31, Y10, Y10
	VPAND Y9, Y0, Y0
	VPADDD Y7, Y0, Y0
	VPOR Y10, Y0, Y0
	VMOVDQU Y0, (DI)
	ADDQ $32, DI
	ADDQ R9, DX
	DECQ CX
	JNZ unpackDeltaLoop
	VZEROUPPER
	RET

// func widthLanes(v *int64, groups int, or, neg *[8]int64)
TEXT ·widthLanes(SB), NOSPLIT, $0-32
	MOVQ v+0(FP), SI
	MOVQ groups+8(FP), CX
	MOVQ or+16(FP), DI
	MOVQ neg+24(FP), DX
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3

widthLoop:
	VMOVDQU64 (SI), Z0
	VPSRAQ $63, Z0, Z1
	VPORQ Z0, Z3, Z3
	VPXORQ Z0, Z1, Z1
	VPORQ Z1, Z2, Z2
	ADDQ $64, SI
	DECQ CX
	JNZ widthLoop
	VMOVDQU64 Z2, (DI)
	VMOVDQU64 Z3, (DX)
	VZEROUPPER
	RET

// func magnitudeLanes(x *float32, groups int, lo, hi *[8]uint32)
TEXT ·magnitudeLanes(SB), NOSPLIT, $0-32
	MOVQ x+0(FP), SI
	MOVQ groups+8(FP), CX
	MOVQ lo+16(FP), DI
	MOVQ hi+24(FP), DX
	MOVL $0x7fffffff, AX
	VMOVD AX, X9
	VPBROADCASTD X9, Y9
	VPCMPEQD Y2, Y2, Y2 // all ones
	VPXOR Y3, Y3, Y3

magnitudeLoop:
	VPAND (SI), Y9, Y0
	VPMINUD Y0, Y2, Y2
	VPMAXUD Y0, Y3, Y3
	ADDQ $32, SI
	DECQ CX
	JNZ magnitudeLoop
	VMOVDQU Y2, (DI)
	VMOVDQU Y3, (DX)
	VZEROUPPER
	RET
