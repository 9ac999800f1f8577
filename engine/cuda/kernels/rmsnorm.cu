// RMSNorm with the addition to the residual stream before it, and its gradient. One block for each row. n is a multiple of eight and at most
// HELD * 8 elements a thread (8192 with 256 threads, 16384 with 512): a row is read once and stays in registers.

#define HELD 4

// A thread's piece i begins at this column.
static __device__ __forceinline__ int column(int i) { return 8 * (threadIdx.x + i * blockDim.x); }

// rmsnorm_forward writes resid = bf16(x + delta), rstd = 1/sqrt(mean(resid^2) + eps) and y = bf16(w * bf16(resid * rstd)), the roundings of
// transformers' LlamaRMSNorm. delta 0: resid is x. resid 0: it is not written; it may be x.
extern "C" __global__ void __launch_bounds__(1024) rmsnorm_forward(const bf16* x, const bf16* delta, const bf16* w, bf16* resid, bf16* y, float* rstd, int rows, int n, int ldy, float eps) {
    long long row = blockIdx.x;
    if (row >= rows) return;
    float v[HELD][8], squares = 0;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        int c = column(i);
        if (c >= n) break;
        load8(v[i], x + row * n + c);
        if (delta) {
            float d[8];
            load8(d, delta + row * n + c);
#pragma unroll
            for (int j = 0; j < 8; j++) v[i][j] = widen(round_bf16(v[i][j] + d[j]));
        }
        if (resid) store8(resid + row * n + c, v[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) squares += v[i][j] * v[i][j];
    }
    float inverse = 1 / sqrtf(block_sum(squares) / n + eps);
    if (threadIdx.x == 0) rstd[row] = inverse;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        int c = column(i);
        if (c >= n) break;
        float scale[8];
        load8(scale, w + c);
#pragma unroll
        for (int j = 0; j < 8; j++) v[i][j] = scale[j] * widen(round_bf16(v[i][j] * inverse));
        store8(y + row * ldy + c, v[i]);
    }
}

// rmsnorm_backward writes dx = bf16(dres + rstd * (g - h * mean(g*h))) with g = dy * w and h = resid * rstd, the normalised row. dres 0: nothing is
// added. dres and dx have one leading dimension, lddx; dx may be dres or, if lddx is lddy, dy.
extern "C" __global__ void __launch_bounds__(512) rmsnorm_backward(const bf16* dy, int lddy, const bf16* resid, const bf16* w, const float* rstd, const bf16* dres, bf16* dx, int lddx, int rows, int n) {
    long long row = blockIdx.x;
    if (row >= rows) return;
    float g[HELD][8], h[HELD][8], product = 0, inverse = rstd[row];
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        int c = column(i);
        if (c >= n) break;
        float scale[8];
        load8(g[i], dy + row * lddy + c);
        load8(h[i], resid + row * n + c);
        load8(scale, w + c);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            g[i][j] *= scale[j];
            h[i][j] *= inverse;
            product += g[i][j] * h[i][j];
        }
    }
    float mean = block_sum(product) / n;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        int c = column(i);
        if (c >= n) break;
        float d[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (dres) load8(d, dres + row * lddx + c);
#pragma unroll
        for (int j = 0; j < 8; j++) d[j] += inverse * (g[i][j] - h[i][j] * mean);
        store8(dx + row * lddx + c, d);
    }
}
