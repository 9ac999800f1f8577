// What the kernels share. All *.cuh files, in the order of their names, stand before every .cu file; there are no includes, so that NVRTC and the
// emulator (engine/cuda/standin) need nothing else.
//
// Vectors of eight bf16 are loaded and stored with 16 bytes. A kernel that does so says it of its arguments; whoever calls it keeps rows and
// leading dimensions at multiples of eight elements.

#define WARP 32
#define ALL_LANES 0xffffffffu

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

typedef unsigned short bf16;  // the upper half of a float

static __device__ __forceinline__ float widen(bf16 h) { return __uint_as_float((unsigned)h << 16); }

// pack_bf16 rounds two floats to bf16, to nearest, ties to even; `low` is in the low half. NaN becomes 0x7fff.
static __device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#ifndef EMULATE
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    unsigned bits[2] = {__float_as_uint(low), __float_as_uint(high)};
    for (unsigned& b : bits) b = (b & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (b + 0x7fffu + (b >> 16 & 1)) >> 16;
    return bits[0] | bits[1] << 16;
#endif
}

static __device__ __forceinline__ bf16 round_bf16(float f) { return (bf16)pack_bf16(f, 0); }

// load8 and store8 move eight bf16 as f32.
static __device__ __forceinline__ void load8(float (&x)[8], const bf16* from) {
    uint4 v = *(const uint4*)from;
    unsigned pair[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(pair[i] << 16);
        x[2 * i + 1] = __uint_as_float(pair[i] & 0xffff0000u);
    }
}

static __device__ __forceinline__ void store8(bf16* to, const float (&x)[8]) {
    *(uint4*)to = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

// first and stride of a loop over all threads of a one-dimensional grid.
static __device__ __forceinline__ long long grid_first() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
static __device__ __forceinline__ long long grid_stride() { return (long long)gridDim.x * blockDim.x; }

// Sums and maxima of a warp and of a block, which all its threads get. The order of the additions depends on the number of threads alone. A block has a
// multiple of WARP threads, 1024 at most, and all of them come.
static __device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) v += __shfl_xor_sync(ALL_LANES, v, lanes);
    return v;
}

static __device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, lanes));
    return v;
}

// gather_warps puts one value of each warp side by side: a lane gets that of the warp with its number, or `none`.
static __device__ __forceinline__ float gather_warps(float of_warp, float none) {
    __shared__ float of_warps[WARP];
    int lane = threadIdx.x % WARP;
    if (lane == 0) of_warps[threadIdx.x / WARP] = of_warp;
    __syncthreads();
    float mine = lane < blockDim.x / WARP ? of_warps[lane] : none;
    __syncthreads();  // before of_warps is written again
    return mine;
}

static __device__ __forceinline__ float block_sum(float v) { return warp_sum(gather_warps(warp_sum(v), 0)); }
static __device__ __forceinline__ float block_max(float v) { return warp_max(gather_warps(warp_max(v), -INFINITY)); }
