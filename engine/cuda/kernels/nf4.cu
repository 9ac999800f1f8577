// NF4 (Dettmers et al. 2023, QLoRA): four bits a weight in blocks of 64 that share a scale, and the scales in eight bits if they are nested (double
// quantisation). Bit for bit engine/quant, which says where the constants are from.

#define BLOCK 64

__constant__ float nf4_levels[16] = {
    -1, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0,
    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1,
};

__constant__ float nf4_edges[15] = {
    -0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f, -0.13791173323988914f,
    -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f, 0.2035212516784668f, 0.2920137718319893f, 0.3893125355243683f,
    0.5016634166240692f, 0.6427869200706482f, 0.8614784178118011f,
};

// nf4_dequantise writes [rows, cols] of bf16 with a leading dimension of ld; blocks run on across the ends of rows. cols and ld are multiples of eight. If nested is 0,
// absmax holds a scale for each block. Else nested is how many scales share one of absmax, `scales` are their codes, and table is the map of the codes, then the offset. Any
// number of threads; rows*cols/8 have work.
extern "C" __global__ void nf4_dequantise(const unsigned* codes, const float* absmax, const unsigned char* scales, const float* table, int nested, bf16* w, int rows, int cols, int ld) {
    __shared__ float levels[16];  // lanes read different levels: constant memory would serve them one by one
    if (threadIdx.x < 16) levels[threadIdx.x] = nf4_levels[threadIdx.x];
    __syncthreads();
    long long pieces = (long long)rows * cols / 8;
    for (long long i = grid_first(); i < pieces; i += grid_stride()) {
        long long block = i / (BLOCK / 8), row = 8 * i / cols;
        float scale = nested ? __fadd_rn(__fmul_rn(table[scales[block]], absmax[block / nested]), table[256]) : absmax[block];
        unsigned eight = codes[i];  // the first weight of a byte is its high half
        float v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = __fmul_rn(levels[eight >> (4 * (j ^ 1)) & 15], scale);
        store8(w + row * ld + (8 * i - row * cols), v);
    }
}

// nf4_code is the number of edges below x; of NaN, 0.
static __device__ __forceinline__ unsigned nf4_code(float x) {
    unsigned code = 0;
#pragma unroll
    for (int i = 0; i < 15; i++) code += x > nf4_edges[i];
    return code;
}

// nf4_quantise writes the codes and the scales of n weights: a warp for each block of 64, any number of warps.
extern "C" __global__ void nf4_quantise(const bf16* w, unsigned char* codes, float* absmax, long long n) {
    int lane = threadIdx.x % WARP;
    for (long long block = grid_first() / WARP; block * BLOCK < n; block += grid_stride() / WARP) {
        long long at = block * BLOCK + 2 * lane;
        float first = at < n ? widen(w[at]) : 0, second = at + 1 < n ? widen(w[at + 1]) : 0;
        float scale = warp_max(fmaxf(fabsf(first), fabsf(second)));
        float inverse = __fdiv_rn(1, scale);
        if (lane == 0) absmax[block] = scale;
        unsigned low = at + 1 < n ? nf4_code(__fmul_rn(second, inverse)) : nf4_code(0);
        if (at < n) codes[at / 2] = nf4_code(__fmul_rn(first, inverse)) << 4 | low;
    }
}

// nf4_nest puts n scales into eight bits: codes of (scale - offset) relative to the largest of 256, which it writes to absmax. One block of 256 threads for each 256 scales. The
// offset, the mean of all scales, is the host's: it is defined as a sum in one order.
extern "C" __global__ void __launch_bounds__(256) nf4_nest(const float* scales, float offset, const float* map, unsigned char* codes, float* absmax, int n) {
    int i = 256 * blockIdx.x + threadIdx.x;
    float x = i < n ? __fsub_rn(scales[i], offset) : 0;
    float top = block_max(fabsf(x));
    if (threadIdx.x == 0) absmax[blockIdx.x] = top;
    if (i < n) codes[i] = nearest_code(map, __fmul_rn(x, __fdiv_rn(1, top)));
}
