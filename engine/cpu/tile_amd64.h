// What tiles of eight rows and 32 or 16 columns share, whatever they multiply. The sums of row i are Z(2i) and Z(2i+1).

#define CLEAR(z) VPXORQ z, z, z

#define CLEAR32 \
	CLEAR(Z0) \
	CLEAR(Z1) \
	CLEAR(Z2) \
	CLEAR(Z3) \
	CLEAR(Z4) \
	CLEAR(Z5) \
	CLEAR(Z6) \
	CLEAR(Z7) \
	CLEAR(Z8) \
	CLEAR(Z9) \
	CLEAR(Z10) \
	CLEAR(Z11) \
	CLEAR(Z12) \
	CLEAR(Z13) \
	CLEAR(Z14) \
	CLEAR(Z15)

#define STORE(lo, hi) \
	VMOVUPS lo, (DX) \
	VMOVUPS hi, 64(DX) \
	ADDQ R9, DX

#define ADDSTORE(lo, hi) \
	VADDPS (DX), lo, lo \
	VADDPS 64(DX), hi, hi \
	STORE(lo, hi)

#define STORE32 \
	STORE(Z0, Z1) \
	STORE(Z2, Z3) \
	STORE(Z4, Z5) \
	STORE(Z6, Z7) \
	STORE(Z8, Z9) \
	STORE(Z10, Z11) \
	STORE(Z12, Z13) \
	STORE(Z14, Z15)

#define ADDSTORE32 \
	ADDSTORE(Z0, Z1) \
	ADDSTORE(Z2, Z3) \
	ADDSTORE(Z4, Z5) \
	ADDSTORE(Z6, Z7) \
	ADDSTORE(Z8, Z9) \
	ADDSTORE(Z10, Z11) \
	ADDSTORE(Z12, Z13) \
	ADDSTORE(Z14, Z15)

// Row i of A is at SI + i*R8: R8, 3*R8, 5*R8 and 7*R8 with scales 1, 2 and 4 reach all eight.
#define ARGUMENTS \
	MOVQ k+0(FP), CX \
	MOVQ a+8(FP), SI \
	MOVQ as+16(FP), R8 \
	MOVQ ak+24(FP), R9 \
	MOVQ b+32(FP), DI \
	MOVQ bs+40(FP), R10 \
	SHLQ $2, R8 \
	SHLQ $2, R9 \
	SHLQ $2, R10 \
	LEAQ (R8)(R8*2), R11 \
	LEAQ (R8)(R8*4), R12 \
	LEAQ (R11)(R8*4), R13

#define OUTPUT \
	MOVQ c+48(FP), DX \
	MOVQ cs+56(FP), R9 \
	SHLQ $2, R9

// FETCH: C is often no nearer than the third cache, and needed at the end only. Clobbers DX and BX.
#define FETCH \
	MOVQ c+48(FP), DX \
	MOVQ cs+56(FP), BX \
	SHLQ $2, BX \
	FETCHROW \
	FETCHROW \
	FETCHROW \
	FETCHROW \
	FETCHROW \
	FETCHROW \
	FETCHROW \
	FETCHROW

#define FETCHROW \
	PREFETCHT0 (DX) \
	PREFETCHT0 64(DX) \
	ADDQ BX, DX
