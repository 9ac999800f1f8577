#include "textflag.h"
#include "tile_amd64.h"

// Go's assembler does not know AVX512_BF16. EVEX writes an instruction of three registers r (operand of 5 bits), as bytes: prefix bits of the
// register numbers are stored inverted.
#define EVEX(pp, opcode, d, v, r) \
	BYTE $0x62 \
	BYTE $(0xF2 ^ (((d>>3)&1)<<7) ^ (((r>>4)&1)<<6) ^ (((r>>3)&1)<<5) ^ (((d>>4)&1)<<4)) \
	BYTE $((0x7C | pp) ^ ((v&15)<<3)) \
	BYTE $(0x48 ^ (((v>>4)&1)<<3)) \
	BYTE $opcode \
	BYTE $(0xC0 | ((d&7)<<3) | (r&7))

// VDPBF16PS Zr, Zv, Zd: in each word, d += the odd elements' product, then d += the even elements' product, each rounded once.
#define DP(d, v, r) EVEX(2, 0x52, d, v, r)

// VCVTNE2PS2BF16 Zr, Zv, Zd: the low half of d is r rounded, the high half v.
#define ROUND(d, v, r) EVEX(3, 0x72, d, v, r)

#define ROW(addr, lo, hi) \
	VPBROADCASTD addr, Z18 \
	DP(lo, 16, 18) \
	DP(hi, 17, 18)

// func tile8x32pairs(k int, a *float32, as, ak int, b *float32, bs int, c *float32, cs int, acc bool, next *float32)
TEXT ·tile8x32pairs(SB), NOSPLIT, $0-80
	ARGUMENTS
	FETCH
	CLEAR32
	MOVQ next+72(FP), AX

loop:
	VMOVUPS (DI), Z16
	VMOVUPS 64(DI), Z17
	ROW((SI), 0, 1)
	ROW((SI)(R8*1), 2, 3)
	ROW((SI)(R8*2), 4, 5)
	ROW((SI)(R11*1), 6, 7)
	ROW((SI)(R8*4), 8, 9)
	ROW((SI)(R12*1), 10, 11)
	ROW((SI)(R11*2), 12, 13)
	ROW((SI)(R13*1), 14, 15)
	ADDQ R9, SI
	ADDQ R10, DI
	PREFETCHT1 (AX)
	ADDQ $8, AX
	DECQ CX
	JNZ  loop

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

// func tile1x32pairs(k int, a *float32, ak int, b *float32, bs int, c *float32, acc bool)
TEXT ·tile1x32pairs(SB), NOSPLIT, $0-49
	MOVQ k+0(FP), CX
	MOVQ a+8(FP), SI
	MOVQ ak+16(FP), R9
	MOVQ b+24(FP), DI
	MOVQ bs+32(FP), R10
	MOVQ c+40(FP), DX
	SHLQ $2, R9
	SHLQ $2, R10
	CLEAR(Z0)
	CLEAR(Z1)

loop:
	VMOVUPS (DI), Z16
	VMOVUPS 64(DI), Z17
	ROW((SI), 0, 1)
	ADDQ R9, SI
	ADDQ R10, DI
	DECQ CX
	JNZ  loop

	CMPB acc+48(FP), $0
	JEQ  store
	VADDPS (DX), Z0, Z0
	VADDPS 64(DX), Z1, Z1

store:
	VMOVUPS Z0, (DX)
	VMOVUPS Z1, 64(DX)
	VZEROUPPER
	RET

// func roundPairs(n int, dst, src *float32): n is a positive multiple of 32; dst may be src.
TEXT ·roundPairs(SB), NOSPLIT, $0-24
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI

loop:
	VMOVUPS (SI), Z16
	VMOVUPS 64(SI), Z17
	ROUND(18, 17, 16)
	VMOVUPS Z18, (DI)
	ADDQ $128, SI
	ADDQ $64, DI
	SUBQ $32, CX
	JNZ  loop
	VZEROUPPER
	RET

// func weavePairs(k int, dst, src *float32)
//
// src is [k][32] bf16, dst [k/2][32] pairs: dst[r][j] = (src[2r][j], src[2r+1][j]). Unpacking works within lanes of 128 bits; an index
// of quarters puts them in order.
TEXT ·weavePairs(SB), NOSPLIT, $0-24
	MOVQ k+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	VMOVUPS weaveLow<>(SB), Z6
	VMOVUPS weaveHigh<>(SB), Z7

loop:
	VMOVUPS (SI), Z0
	VMOVUPS 64(SI), Z1
	VPUNPCKLWD Z1, Z0, Z2
	VPUNPCKHWD Z1, Z0, Z3
	VMOVAPS Z2, Z4
	VPERMT2Q Z3, Z6, Z2
	VPERMT2Q Z3, Z7, Z4
	VMOVUPS Z2, (DI)
	VMOVUPS Z4, 64(DI)
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $2, CX
	JNZ  loop
	VZEROUPPER
	RET

// Quarters of two registers, 8 numbers in each: 0, 1 are the first of the first, 8, 9 the first of the second.
DATA weaveLow<>+0(SB)/8, $0
DATA weaveLow<>+8(SB)/8, $1
DATA weaveLow<>+16(SB)/8, $8
DATA weaveLow<>+24(SB)/8, $9
DATA weaveLow<>+32(SB)/8, $2
DATA weaveLow<>+40(SB)/8, $3
DATA weaveLow<>+48(SB)/8, $10
DATA weaveLow<>+56(SB)/8, $11
GLOBL weaveLow<>(SB), RODATA|NOPTR, $64
DATA weaveHigh<>+0(SB)/8, $4
DATA weaveHigh<>+8(SB)/8, $5
DATA weaveHigh<>+16(SB)/8, $12
DATA weaveHigh<>+24(SB)/8, $13
DATA weaveHigh<>+32(SB)/8, $6
DATA weaveHigh<>+40(SB)/8, $7
DATA weaveHigh<>+48(SB)/8, $14
DATA weaveHigh<>+56(SB)/8, $15
GLOBL weaveHigh<>(SB), RODATA|NOPTR, $64

// func turnPairs(k int, src *float32, dst *float32)
//
// src is [16][32] words of pairs along its rows' index, of which k (a multiple of 4) columns are used; dst is [k/2][32] pairs along its
// columns' index: dst[r][2i+h] = (half h of src[i][2r], half h of src[i][2r+1]). Four rows at a time share a 4x4 transpose within each lane, as in
// transpose16; lane l holds rows 2l, 2l+1, 8+2l and 9+2l, so that unpacking leaves everything in order.
TEXT ·turnPairs(SB), NOSPLIT, $0-24
	MOVQ k+0(FP), CX
	MOVQ src+8(FP), SI
	MOVQ dst+16(FP), DI
	LEAQ 4096(SI), AX // two calls ahead: one strip follows the other, and weights come from memory

loop:
	PREFETCHT0 (AX)
	PREFETCHT0 64(AX)
	PREFETCHT0 128(AX)
	PREFETCHT0 192(AX)
	ADDQ $256, AX
	VMOVUPS (SI), X0
	VMOVUPS 128(SI), X1
	VMOVUPS 1024(SI), X2
	VMOVUPS 1152(SI), X3
	VINSERTF32X4 $1, 256(SI), Z0, Z0
	VINSERTF32X4 $1, 384(SI), Z1, Z1
	VINSERTF32X4 $1, 1280(SI), Z2, Z2
	VINSERTF32X4 $1, 1408(SI), Z3, Z3
	VINSERTF32X4 $2, 512(SI), Z0, Z0
	VINSERTF32X4 $2, 640(SI), Z1, Z1
	VINSERTF32X4 $2, 1536(SI), Z2, Z2
	VINSERTF32X4 $2, 1664(SI), Z3, Z3
	VINSERTF32X4 $3, 768(SI), Z0, Z0
	VINSERTF32X4 $3, 896(SI), Z1, Z1
	VINSERTF32X4 $3, 1792(SI), Z2, Z2
	VINSERTF32X4 $3, 1920(SI), Z3, Z3
	VUNPCKLPS Z1, Z0, Z4
	VUNPCKHPS Z1, Z0, Z5
	VUNPCKLPS Z3, Z2, Z6
	VUNPCKHPS Z3, Z2, Z7
	VUNPCKLPD Z6, Z4, Z0
	VUNPCKHPD Z6, Z4, Z1
	VUNPCKLPD Z7, Z5, Z2
	VUNPCKHPD Z7, Z5, Z3
	VPUNPCKLWD Z1, Z0, Z4
	VPUNPCKHWD Z1, Z0, Z5
	VPUNPCKLWD Z3, Z2, Z6
	VPUNPCKHWD Z3, Z2, Z7
	VMOVUPS Z4, (DI)
	VMOVUPS Z5, 64(DI)
	VMOVUPS Z6, 128(DI)
	VMOVUPS Z7, 192(DI)
	ADDQ $16, SI
	ADDQ $256, DI
	SUBQ $4, CX
	JNZ  loop
	VZEROUPPER
	RET
