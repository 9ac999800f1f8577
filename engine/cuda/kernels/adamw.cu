// AdamW over flat vectors, bit for bit engine/optim: every operation is rounded once, nothing is fused. The scalars are worked out by the host, as there.

// adamw takes one step: m and v are the moments in f32. Any number of threads.
extern "C" __global__ void adamw(float* p, const float* g, float* m, float* v, long long n, float keep, float step_size, float root_correction2, float one_minus_beta1, float beta2, float one_minus_beta2, float eps) {
    for (long long i = grid_first(); i < n; i += grid_stride()) {
        float gi = g[i];
        float mi = __fadd_rn(m[i], __fmul_rn(one_minus_beta1, __fsub_rn(gi, m[i])));
        float vi = __fadd_rn(__fmul_rn(beta2, v[i]), __fmul_rn(__fmul_rn(one_minus_beta2, gi), gi));
        m[i] = mi, v[i] = vi;
        float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(vi), root_correction2), eps);
        p[i] = __fsub_rn(__fmul_rn(p[i], keep), __fdiv_rn(__fmul_rn(step_size, mi), denominator));
    }
}

// signed_code is the nearest code, moved by one if it would change the sign (bitsandbytes); of a block of zeros 255.
static __device__ __forceinline__ unsigned char signed_code(const float* map, float x, float absmax) {
    int c = nearest_code(map, __fdiv_rn(x, absmax));
    if (__float_as_uint(map[c]) >> 31 == __float_as_uint(x) >> 31) return c;
    return x > 0 ? c + 1 : c - 1;
}

// adamw8 is bitsandbytes' block-wise 8-bit AdamW: the moments are codes of a signed and an unsigned map, and 256 of them share a scale. One block of 256 threads for each
// 256 elements of one tensor. Weight decay comes after the update. An element whose gradient is no number is left alone and forgets its moments.
extern "C" __global__ void __launch_bounds__(256) adamw8(float* p, const float* g, unsigned char* m, float* m_absmax, unsigned char* v, float* v_absmax, const float* signed_map, const float* unsigned_map, int n, float beta1, float beta2, float one_minus_beta1, float one_minus_beta2, float step_size, float eps, float keep) {
    long long i = 256LL * blockIdx.x + threadIdx.x;
    bool here = i < n;
    float gi = here ? g[i] : 0, mi = 0, vi = 0;
    if (here && __fsub_rn(gi, gi) == 0) {
        vi = __fmul_rn(unsigned_map[v[i]], v_absmax[blockIdx.x]);
        mi = __fmul_rn(signed_map[m[i]], m_absmax[blockIdx.x]);
        vi = __fadd_rn(__fmul_rn(vi, beta2), __fmul_rn(__fmul_rn(one_minus_beta2, gi), gi));
        mi = __fadd_rn(__fmul_rn(mi, beta1), __fmul_rn(one_minus_beta1, gi));
        float update = __fmul_rn(step_size, __fdiv_rn(mi, __fadd_rn(__fsqrt_rn(vi), eps)));
        p[i] = __fmul_rn(__fadd_rn(p[i], update), keep);
    }
    float m_top = block_max(fabsf(mi)), v_top = block_max(fabsf(vi));  // all have read the old scales
    if (threadIdx.x == 0) m_absmax[blockIdx.x] = m_top, v_absmax[blockIdx.x] = v_top;
    if (!here) return;
    m[i] = signed_code(signed_map, mi, m_top);
    v[i] = nearest_code(unsigned_map, __fdiv_rn(vi, v_top));
}
