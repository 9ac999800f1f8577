// Causal flash attention, forward: o = softmax(scale q k^T) v without the matrix of scores (Dao 2023, "FlashAttention-2", algorithm 1).
//
//   o    [rows, ldo] bf16      lse [heads, rows] f32, the logarithm of each row's sum of exponentials, which the backward pass needs
//
// Grid: x = heads, y = the list's length; a block has 128 rows in four warps. The keys come in double-buffered tiles with one barrier each.

// finish writes the lse of a warp's rows and gives what to multiply their sums by.
template <int M>
static __device__ __forceinline__ void finish(float (&factor)[M][2], float* lse, const RowStatistics<M>& rows, int first, int end, float scale) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        float sum = rows.sum[i / 2][i % 2];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        factor[i / 2][i % 2] = 1 / sum;
        int row = first + 8 * i + lane / 4;
        if (lane % 4 == 0 && row < end) lse[row] = rows.largest[i / 2][i % 2] * scale + logf(sum);
    }
}

template <int D, int KEYS, int M, bool KEEP>
static __device__ __forceinline__ void flash_forward(const bf16* qkv, int ld, const int* parts, bf16* o, int ldo, float* lse, int rows, int heads,
                                                     int kv_heads, float scale, int window) {
    const int THREADS = 4 * WARP, ROWS = 4 * 16 * M, TILE = KEYS * ROW_BYTES<D>;
    Part part = part_of(parts);
    if (part.end == 0) return;
    int head = blockIdx.x, warp_row = threadIdx.x / WARP * 16 * M, warp_first = part.first + warp_row;
    const bf16* k = qkv + (heads + head / (heads / kv_heads)) * D;
    const bf16* v = k + kv_heads * D;
    window = window_of(window, rows);
    Range tiles = keys_seen(part, ROWS, KEYS, window);

    Shared queries = dynamic_shared(), stages = queries + ROWS * ROW_BYTES<D>;
    load_tile<D, ROWS, THREADS>(queries, qkv + head * D, ld, part.first, part.end);
    load_tile<D, KEYS, THREADS>(stages, k, ld, part.begin + tiles.from * KEYS, part.end);
    load_tile<D, KEYS, THREADS>(stages + TILE, v, ld, part.begin + tiles.from * KEYS, part.end);

    LeftRows<D, M, KEEP> q;
    q.tile = queries, q.row = warp_row;
    float sums[M][D / 8][4];
    RowStatistics<M> statistics;
    zero(sums);
    clear(statistics);

    for (int tile = tiles.from; tile < tiles.to; tile++) {
        int first_key = part.begin + tile * KEYS;
        Shared stage = stages + ((tile - tiles.from) & 1) * (2 * TILE), other = stages + ((tile - tiles.from + 1) & 1) * (2 * TILE);
        copy_wait();
        __syncthreads();
        if (tile == tiles.from) q.keep();
        if (tile + 1 < tiles.to) {
            load_tile<D, KEYS, THREADS>(other, k, ld, first_key + KEYS, part.end);
            load_tile<D, KEYS, THREADS>(other + TILE, v, ld, first_key + KEYS, part.end);
        }
        if (warp_first >= part.end || !any_sees(warp_first, 16 * M, first_key, KEYS, window)) continue;
        float s[M][KEYS / 8][4];
        score(s, q, stage, 0);
        if (!all_see(warp_first, 16 * M, first_key, KEYS, window)) hide<false>(s, warp_first, first_key, window);
        soften<D>(statistics, s, sums, scale * LOG2_E);
        weigh<D>(sums, s, stage + TILE, 0);
    }

    float factor[M][2];
    finish(factor, lse + (long long)head * rows, statistics, warp_first, part.end, scale);
    store_rows<D>(o + head * D, ldo, warp_first, part.end, sums, factor, queries, warp_row);
}

extern "C" __global__ void __launch_bounds__(128, 2) flash_forward_d64(const bf16* qkv, int ld, const int* parts, bf16* o, int ldo, float* lse,
        int rows, int heads, int kv_heads, float scale, int window) {
    flash_forward<64, 64, 2, true>(qkv, ld, parts, o, ldo, lse, rows, heads, kv_heads, scale, window);
}

extern "C" __global__ void __launch_bounds__(128, 2) flash_forward_d96(const bf16* qkv, int ld, const int* parts, bf16* o, int ldo, float* lse,
        int rows, int heads, int kv_heads, float scale, int window) {
    flash_forward<96, 32, 2, false>(qkv, ld, parts, o, ldo, lse, rows, heads, kv_heads, scale, window);
}

extern "C" __global__ void __launch_bounds__(128, 2) flash_forward_d128(const bf16* qkv, int ld, const int* parts, bf16* o, int ldo, float* lse,
        int rows, int heads, int kv_heads, float scale, int window) {
    flash_forward<128, 32, 2, false>(qkv, ld, parts, o, ldo, lse, rows, heads, kv_heads, scale, window);
}
