#include "textflag.h"
#include "tile_amd64.h"

// One step along k: two vectors of B, eight broadcasts of A, sixteen multiply-adds.
#define ROW(addr, lo, hi) \
	VBROADCASTSS addr, Z18 \
	VFMADD231PS Z16, Z18, lo \
	VFMADD231PS Z17, Z18, hi

#define HALF(addr, lo) \
	VFMADD231PS.BCST addr, Z16, lo

#define STEP32(ahead) \
	VMOVUPS (DI), Z16 \
	VMOVUPS 64(DI), Z17 \
	PREFETCHT0 ahead \
	ROW((SI), Z0, Z1) \
	ROW((SI)(R8*1), Z2, Z3) \
	ROW((SI)(R8*2), Z4, Z5) \
	ROW((SI)(R11*1), Z6, Z7) \
	ROW((SI)(R8*4), Z8, Z9) \
	ROW((SI)(R12*1), Z10, Z11) \
	ROW((SI)(R11*2), Z12, Z13) \
	ROW((SI)(R13*1), Z14, Z15) \
	ADDQ R9, SI \
	ADDQ R10, DI

#define STEP16(ahead) \
	VMOVUPS (DI), Z16 \
	PREFETCHT0 ahead \
	HALF((SI), Z0) \
	HALF((SI)(R8*1), Z1) \
	HALF((SI)(R8*2), Z2) \
	HALF((SI)(R11*1), Z3) \
	HALF((SI)(R8*4), Z4) \
	HALF((SI)(R12*1), Z5) \
	HALF((SI)(R11*2), Z6) \
	HALF((SI)(R13*1), Z7) \
	ADDQ R9, SI \
	ADDQ R10, DI

// STEPS does k steps. At next are rows that will be needed after this tile; eight steps have a line of each fetched: into the first cache, for
// they are short (k) and about to be read. Without them it is the tile's own rows.
#define STEPS(STEP) \
	MOVQ next+72(FP), AX \
	TESTQ AX, AX \
	CMOVQEQ SI, AX \
	MOVQ R9, BX \
	SHLQ $3, BX \
	SUBQ $8, CX \
	JL   rest \
eight: \
	STEP((AX)) \
	STEP((AX)(R8*1)) \
	STEP((AX)(R8*2)) \
	STEP((AX)(R11*1)) \
	STEP((AX)(R8*4)) \
	STEP((AX)(R12*1)) \
	STEP((AX)(R11*2)) \
	STEP((AX)(R13*1)) \
	ADDQ BX, AX \
	SUBQ $8, CX \
	JGE  eight \
rest: \
	ADDQ $8, CX \
	JZ   done \
one: \
	STEP((SI)) \
	DECQ CX \
	JNZ  one \
done:

// func tile8x32(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)
TEXT ·tile8x32(SB), NOSPLIT, $0-80
	ARGUMENTS
	FETCH
	CLEAR32

	STEPS(STEP32)

	OUTPUT
	CMPB acc+64(FP), $0
	JNE  add
	STORE32
	VZEROUPPER
	RET

add:
	ADDSTORE32
	VZEROUPPER
	RET

#define STORE16(z) \
	VMOVUPS z, (DX) \
	ADDQ R9, DX

#define ADDSTORE16(z) \
	VADDPS (DX), z, z \
	STORE16(z)

// func tile8x16(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)
TEXT ·tile8x16(SB), NOSPLIT, $0-80
	ARGUMENTS
	CLEAR(Z0)
	CLEAR(Z1)
	CLEAR(Z2)
	CLEAR(Z3)
	CLEAR(Z4)
	CLEAR(Z5)
	CLEAR(Z6)
	CLEAR(Z7)

	STEPS(STEP16)

	OUTPUT
	CMPB acc+64(FP), $0
	JNE  add
	STORE16(Z0)
	STORE16(Z1)
	STORE16(Z2)
	STORE16(Z3)
	STORE16(Z4)
	STORE16(Z5)
	STORE16(Z6)
	STORE16(Z7)
	VZEROUPPER
	RET

add:
	ADDSTORE16(Z0)
	ADDSTORE16(Z1)
	ADDSTORE16(Z2)
	ADDSTORE16(Z3)
	ADDSTORE16(Z4)
	ADDSTORE16(Z5)
	ADDSTORE16(Z6)
	ADDSTORE16(Z7)
	VZEROUPPER
	RET

// func transpose16(k int, src *float32, ld int, dst *float32, ds int)
//
// Four rows at a time share a 4x4 transpose within each 128-bit lane: lane l of a register holds a row of the quartet 4l..4l+3.
TEXT ·transpose16(SB), NOSPLIT, $0-40
	MOVQ k+0(FP), CX
	MOVQ src+8(FP), SI
	MOVQ ld+16(FP), R8
	MOVQ dst+24(FP), DI
	MOVQ ds+32(FP), R9
	SHLQ $2, R8
	SHLQ $2, R9
	LEAQ (R8)(R8*2), R11
	LEAQ (SI)(R8*4), R10
	LEAQ (R10)(R8*4), R12
	LEAQ (R12)(R8*4), R13
	LEAQ (R9)(R9*2), BX

loop:
	VMOVUPS (SI), X0
	VMOVUPS (SI)(R8*1), X1
	VMOVUPS (SI)(R8*2), X2
	VMOVUPS (SI)(R11*1), X3
	VINSERTF32X4 $1, (R10), Z0, Z0
	VINSERTF32X4 $1, (R10)(R8*1), Z1, Z1
	VINSERTF32X4 $1, (R10)(R8*2), Z2, Z2
	VINSERTF32X4 $1, (R10)(R11*1), Z3, Z3
	VINSERTF32X4 $2, (R12), Z0, Z0
	VINSERTF32X4 $2, (R12)(R8*1), Z1, Z1
	VINSERTF32X4 $2, (R12)(R8*2), Z2, Z2
	VINSERTF32X4 $2, (R12)(R11*1), Z3, Z3
	VINSERTF32X4 $3, (R13), Z0, Z0
	VINSERTF32X4 $3, (R13)(R8*1), Z1, Z1
	VINSERTF32X4 $3, (R13)(R8*2), Z2, Z2
	VINSERTF32X4 $3, (R13)(R11*1), Z3, Z3
	VUNPCKLPS Z1, Z0, Z4
	VUNPCKHPS Z1, Z0, Z5
	VUNPCKLPS Z3, Z2, Z6
	VUNPCKHPS Z3, Z2, Z7
	VUNPCKLPD Z6, Z4, Z0
	VUNPCKHPD Z6, Z4, Z1
	VUNPCKLPD Z7, Z5, Z2
	VUNPCKHPD Z7, Z5, Z3
	VMOVUPS Z0, (DI)
	VMOVUPS Z1, (DI)(R9*1)
	VMOVUPS Z2, (DI)(R9*2)
	VMOVUPS Z3, (DI)(BX*1)
	LEAQ (DI)(R9*4), DI
	ADDQ $16, SI
	ADDQ $16, R10
	ADDQ $16, R12
	ADDQ $16, R13
	SUBQ $4, CX
	JNZ  loop
	VZEROUPPER
	RET
