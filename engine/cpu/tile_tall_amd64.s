#include "textflag.h"
#include "tile_amd64.h"

#define FMA(i, z) VFMADD231PS.BCST (4*i)(SI), Z16, z

#define OUT(z) \
	VMOVUPS z, (DX) \
	ADDQ R9, DX

#define ADDOUT(z) \
	VADDPS (DX), z, z \
	OUT(z)

// func tile16x16(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)
//
// as is 1: a step along k reads one line of A and one of B, and either may be far from the one before. They are fetched 40 steps ahead: with 8, which
// is less than the third cache takes, half of the time was waiting.
TEXT ·tile16x16(SB), NOSPLIT, $0-80
	ARGUMENTS
	LEAQ (R9)(R9*4), R11
	LEAQ (R10)(R10*4), R12
	CLEAR32

loop:
	VMOVUPS (DI), Z16
	PREFETCHT0 (DI)(R12*8)
	PREFETCHT0 (SI)(R11*8)
	FMA(0, Z0)
	FMA(1, Z1)
	FMA(2, Z2)
	FMA(3, Z3)
	FMA(4, Z4)
	FMA(5, Z5)
	FMA(6, Z6)
	FMA(7, Z7)
	FMA(8, Z8)
	FMA(9, Z9)
	FMA(10, Z10)
	FMA(11, Z11)
	FMA(12, Z12)
	FMA(13, Z13)
	FMA(14, Z14)
	FMA(15, Z15)
	ADDQ R9, SI
	ADDQ R10, DI
	DECQ CX
	JNZ  loop

	OUTPUT
	CMPB acc+64(FP), $0
	JNE  add
	OUT(Z0)
	OUT(Z1)
	OUT(Z2)
	OUT(Z3)
	OUT(Z4)
	OUT(Z5)
	OUT(Z6)
	OUT(Z7)
	OUT(Z8)
	OUT(Z9)
	OUT(Z10)
	OUT(Z11)
	OUT(Z12)
	OUT(Z13)
	OUT(Z14)
	OUT(Z15)
	VZEROUPPER
	RET

add:
	ADDOUT(Z0)
	ADDOUT(Z1)
	ADDOUT(Z2)
	ADDOUT(Z3)
	ADDOUT(Z4)
	ADDOUT(Z5)
	ADDOUT(Z6)
	ADDOUT(Z7)
	ADDOUT(Z8)
	ADDOUT(Z9)
	ADDOUT(Z10)
	ADDOUT(Z11)
	ADDOUT(Z12)
	ADDOUT(Z13)
	ADDOUT(Z14)
	ADDOUT(Z15)
	VZEROUPPER
	RET
