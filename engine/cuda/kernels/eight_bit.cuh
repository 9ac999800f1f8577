// Eight-bit codes of a map (engine/quant: 256 values, ascending), bit for bit those of quant.Map.Nearest.

// nearest_code is the code of the value nearest to x; halfway between two, the even one; of NaN, 0.
static __device__ __forceinline__ int nearest_code(const float* map, float x) {
    int p = 127;
#pragma unroll
    for (int step = 64; step > 0; step /= 2) p += x > map[p] ? step : -step;
    if (x > map[p]) return x > __fmul_rn(__fadd_rn(map[p], map[p + 1]), 0.5f) ? p + 1 : p;
    return p > 0 && x < __fmul_rn(__fadd_rn(map[p - 1], map[p]), 0.5f) ? p - 1 : p;
}
