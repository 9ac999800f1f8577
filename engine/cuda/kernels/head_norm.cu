// RMSNorm of each head of q and k before they turn (Qwen3), and its gradient. The first `heads` heads of a row, of d columns each, have norms: those of q,
// the first q_heads, by wq[d], those of k by wk[d]. d is 64, 128 or 256 and leading dimensions are multiples of eight. A head is d/8 lanes of one warp; any number of
// threads that is a multiple of WARP; rows*heads*d/8 have work.

// Piece is a lane's share of a warp's heads. Lanes beyond the last head have none of their own, but come to the sums.
struct Piece {
    bool live;
    long long row;
    int head, column;  // of the head, and within it
};

static __device__ __forceinline__ Piece piece_of(long long i, int rows, int heads, int d) {
    long long head = i / (d / 8);
    Piece p = {head < (long long)rows * heads, head / heads, (int)(head % heads), 8 * (int)(i % (d / 8))};
    return p;
}

// head_sum adds up over the lanes of a head, in an order that depends on d alone.
static __device__ __forceinline__ float head_sum(float v, int d) {
    for (int lanes = d / 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(ALL_LANES, v, lanes);
    return v;
}

static __device__ __forceinline__ float inverse_rms(const float (&x)[8], int d, float eps) {
    float squares = 0;
#pragma unroll
    for (int j = 0; j < 8; j++) squares += x[j] * x[j];
    return 1 / sqrtf(head_sum(squares, d) / d + eps);
}

// head_norm_forward writes the heads of x as they are to raw, for the gradient, and in their place w * bf16(head / rms(head)), rounded as in transformers.
extern "C" __global__ void head_norm_forward(bf16* x, int ld, const bf16* wq, const bf16* wk, bf16* raw, int ldraw, int rows, int q_heads, int heads, int d, float eps) {
    long long n = (long long)rows * heads * (d / 8), lane = threadIdx.x % WARP;
    for (long long i = grid_first(); i - lane < n; i += grid_stride()) {
        Piece p = piece_of(i, rows, heads, d);
        float v[8] = {0, 0, 0, 0, 0, 0, 0, 0}, w[8];
        bf16* at = x + p.row * ld + p.head * d + p.column;
        if (p.live) load8(v, at);
        float inverse = inverse_rms(v, d, eps);
        if (!p.live) continue;
        store8(raw + p.row * ldraw + p.head * d + p.column, v);
        load8(w, (p.head < q_heads ? wq : wk) + p.column);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = w[j] * widen(round_bf16(v[j] * inverse));
        store8(at, v);
    }
}

// head_norm_backward turns the gradient dx of the norms' output into that of their input, in place.
extern "C" __global__ void head_norm_backward(bf16* dx, int ld, const bf16* wq, const bf16* wk, const bf16* raw, int ldraw, int rows, int q_heads, int heads, int d, float eps) {
    long long n = (long long)rows * heads * (d / 8), lane = threadIdx.x % WARP;
    for (long long i = grid_first(); i - lane < n; i += grid_stride()) {
        Piece p = piece_of(i, rows, heads, d);
        float h[8] = {0, 0, 0, 0, 0, 0, 0, 0}, g[8] = {0, 0, 0, 0, 0, 0, 0, 0}, w[8], product = 0;
        bf16* at = dx + p.row * ld + p.head * d + p.column;
        if (p.live) load8(h, raw + p.row * ldraw + p.head * d + p.column), load8(g, at);
        float inverse = inverse_rms(h, d, eps);
        load8(w, (p.head < q_heads ? wq : wk) + p.column);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            g[j] *= w[j];
            h[j] *= inverse;
            product += g[j] * h[j];
        }
        float mean = head_sum(product, d) / d;
        if (!p.live) continue;
#pragma unroll
        for (int j = 0; j < 8; j++) g[j] = inverse * (g[j] - h[j] * mean);
        store8(at, g);
    }
}
