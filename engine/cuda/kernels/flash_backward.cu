// Causal flash attention, backward (Dao 2023, "FlashAttention-2", algorithm 2), in two kernels instead of one: the gradients of keys and values go
// over the queries, those of queries over the keys, and each computes the weights again. Seven products instead of five, but no atomics: each sum has
// one owner and one order.
//
//   p = 2^(unit s - lse)   dv = p^T do   dp = do v^T   ds = p (dp - delta)   dk = scale ds^T q   dq = scale ds k
//
//   lse, delta [heads, rows] f32; do, o [rows, lddo], [rows, ldo] bf16; dqkv [rows, lddqkv] bf16, laid out as qkv

// flash_delta: delta = sum over a head's columns of o * do. Grid: x = ceil(rows*heads / 4), blocks of 4 warps, one head of one row each.
extern "C" __global__ void flash_delta(const bf16* o, int ldo, const bf16* dout, int lddo, float* delta, int rows, int heads, int d) {
    int index = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (index >= rows * heads) return;
    int row = index / heads, head = index % heads;
    const unsigned* a = (const unsigned*)(o + (long long)row * ldo + head * d);
    const unsigned* b = (const unsigned*)(dout + (long long)row * lddo + head * d);
    float sum = 0;
    for (int i = lane; i < d / 2; i += WARP) sum += widen((bf16)a[i]) * widen((bf16)b[i]) + widen(a[i] >> 16) * widen(b[i] >> 16);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, distance);
    if (lane == 0) delta[(long long)head * rows + row] = sum;
}

struct BackwardArguments {
    const bf16* qkv;
    int ld;
    const int* parts;
    const bf16* dout;
    int lddo;
    const float *lse, *delta;
    bf16* dqkv;
    int lddqkv, rows, heads, kv_heads;
    float scale;
    int window;
};

// differentiate_rows turns scores into ds; the rows are queries, whose lse is in units of log 2.
template <int M, int N>
static __device__ __forceinline__ void differentiate_rows(float (&s)[M][N][4], const float (&dp)[M][N][4], const float (&lse2)[M][2], const float (&delta)[M][2],
                                                          float unit) {
#pragma unroll
    for (int i = 0; i < M * N * 4; i++) {
        int m = i / (N * 4), n = i / 4 % N, j = i % 4, h = j / 2;
        s[m][n][j] = power_of_two(s[m][n][j] * unit - lse2[m][h]) * (dp[m][n][j] - delta[m][h]);
    }
}

// differentiate_columns turns scores into p, and dp into ds; the columns are queries. Shared memory holds the lse of the lane's first query, of its
// neighbours, and QUERIES floats further their deltas.
template <int QUERIES, int M, int N>
static __device__ __forceinline__ void differentiate_columns(float (&s)[M][N][4], float (&dp)[M][N][4], Shared lse, float unit) {
#pragma unroll
    for (int n = 0; n < N; n++) {
        float column_lse[2], delta[2];
        load_two_floats(column_lse, lse + 4 * 8 * n);
        load_two_floats(delta, lse + 4 * 8 * n + 4 * QUERIES);
#pragma unroll
        for (int i = 0; i < 4 * M; i++) {
            int m = i / 4, j = i % 4;
            s[m][n][j] = power_of_two(s[m][n][j] * unit - column_lse[j % 2] * LOG2_E);
            dp[m][n][j] = s[m][n][j] * (dp[m][n][j] - delta[j % 2]);
        }
    }
}

// The gradient of 16*M*WARPS queries of a head. Grid: x = heads, y = the list's length.
template <int D, int KEYS, int CHUNK, int M, int WARPS, bool KEEP>
static __device__ __forceinline__ void flash_backward_q(const BackwardArguments& a) {
    const int THREADS = WARPS * WARP, ROWS = WARPS * 16 * M, TILE = KEYS * ROW_BYTES<D>;
    Part part = part_of(a.parts);
    if (part.end == 0) return;
    int head = blockIdx.x, lane = threadIdx.x % WARP, g = lane / 4;
    int warp_row = threadIdx.x / WARP * 16 * M, warp_first = part.first + warp_row;
    const bf16* k = a.qkv + (a.heads + head / (a.heads / a.kv_heads)) * D;
    const bf16* v = k + a.kv_heads * D;
    const int window = window_of(a.window, a.rows);
    Range tiles = keys_seen(part, ROWS, KEYS, window);

    Shared queries = dynamic_shared(), gradients = queries + ROWS * ROW_BYTES<D>, stages = gradients + ROWS * ROW_BYTES<D>;
    load_tile<D, ROWS, THREADS>(queries, a.qkv + head * D, a.ld, part.first, part.end);
    load_tile<D, ROWS, THREADS>(gradients, a.dout + head * D, a.lddo, part.first, part.end);
    load_tile<D, KEYS, THREADS>(stages, k, a.ld, part.begin + tiles.from * KEYS, part.end);
    load_tile<D, KEYS, THREADS>(stages + TILE, v, a.ld, part.begin + tiles.from * KEYS, part.end);

    LeftRows<D, M, KEEP> q, grad;
    q.tile = queries, grad.tile = gradients, q.row = grad.row = warp_row;
    float dq[M][D / 8][4], lse2[M][2], row_delta[M][2], factor[M][2];
    zero(dq);
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int row = warp_first + 8 * i + g;
        lse2[i / 2][i % 2] = row < part.end ? a.lse[(long long)head * a.rows + row] * LOG2_E : 0.0f;
        row_delta[i / 2][i % 2] = row < part.end ? a.delta[(long long)head * a.rows + row] : 0.0f;
        factor[i / 2][i % 2] = a.scale;
    }

    for (int tile = tiles.from; tile < tiles.to; tile++) {
        int first_key = part.begin + tile * KEYS;
        Shared stage = stages + ((tile - tiles.from) & 1) * (2 * TILE), other = stages + ((tile - tiles.from + 1) & 1) * (2 * TILE);
        copy_wait();
        __syncthreads();
        if (tile == tiles.from) q.keep(), grad.keep();
        if (tile + 1 < tiles.to) {
            load_tile<D, KEYS, THREADS>(other, k, a.ld, first_key + KEYS, part.end);
            load_tile<D, KEYS, THREADS>(other + TILE, v, a.ld, first_key + KEYS, part.end);
        }
        if (warp_first >= part.end) continue;
#pragma unroll 1
        for (int c = 0; c < KEYS; c += CHUNK) {
            int key = first_key + c;
            if (!any_sees(warp_first, 16 * M, key, CHUNK, window)) continue;
            float s[M][CHUNK / 8][4], dp[M][CHUNK / 8][4];
            score(s, q, stage, c);
            score(dp, grad, stage + TILE, c);
            if (!all_see(warp_first, 16 * M, key, CHUNK, window)) hide<false>(s, warp_first, key, window);
            differentiate_rows(s, dp, lse2, row_delta, a.scale * LOG2_E);
            weigh<D>(dq, s, stage, c);
        }
    }
    store_rows<D>(a.dqkv + head * D, a.lddqkv, warp_first, part.end, dq, factor, queries, warp_row);
}

// What a step over some queries of a head needs: tiles of q and do, their lse and delta.
template <int D, int QUERIES, int THREADS>
static __device__ __forceinline__ void load_queries(const BackwardArguments& a, Shared stage, int head, int row, int end) {
    const int TILE = QUERIES * ROW_BYTES<D>;
    load_tile<D, QUERIES, THREADS>(stage, a.qkv + head * D, a.ld, row, end);
    load_tile<D, QUERIES, THREADS>(stage + TILE, a.dout + head * D, a.lddo, row, end);
    long long head_row = (long long)head * a.rows;
    load_row_values<QUERIES>(stage + 2 * TILE, a.lse + head_row, a.delta + head_row, row, end);
}

// The gradients of 16*M*WARPS keys and values of a head, over all query heads of its group. Grid: x = kv_heads, y = the list's length.
template <int D, int QUERIES, int CHUNK, int M, int WARPS, bool KEEP>
static __device__ __forceinline__ void flash_backward_kv(const BackwardArguments& a) {
    const int THREADS = WARPS * WARP, KEYS = WARPS * 16 * M, TILE = QUERIES * ROW_BYTES<D>, STAGE = 2 * TILE + 8 * QUERIES;
    Part part = part_of(a.parts);
    if (part.end == 0) return;
    int kv_head = blockIdx.x, group = a.heads / a.kv_heads, t = threadIdx.x % 4;
    int warp_row = threadIdx.x / WARP * 16 * M, warp_first = part.first + warp_row;
    const int window = window_of(a.window, a.rows);
    Range tiles = queries_seeing(part, KEYS, QUERIES, window);
    int column = (a.heads + kv_head) * D;

    Shared keys = dynamic_shared(), values = keys + KEYS * ROW_BYTES<D>, stages = values + KEYS * ROW_BYTES<D>;
    load_tile<D, KEYS, THREADS>(keys, a.qkv + column, a.ld, part.first, part.end);
    load_tile<D, KEYS, THREADS>(values, a.qkv + column + a.kv_heads * D, a.ld, part.first, part.end);
    load_queries<D, QUERIES, THREADS>(a, stages, kv_head * group, part.begin + tiles.from * QUERIES, part.end);

    LeftRows<D, M, KEEP> k, v;
    k.tile = keys, v.tile = values, k.row = v.row = warp_row;
    float dk[M][D / 8][4], dv[M][D / 8][4];
    zero(dk), zero(dv);

    int steps = group * (tiles.to - tiles.from), next_head = kv_head * group, next = tiles.from;
    for (int step = 0; step < steps; step++) {
        int first_query = part.begin + next * QUERIES;
        Shared stage = stages + (step & 1) * STAGE;
        if (++next == tiles.to) next = tiles.from, next_head++;
        copy_wait();
        __syncthreads();
        if (step == 0) k.keep(), v.keep();
        if (step + 1 < steps)
            load_queries<D, QUERIES, THREADS>(a, stages + ((step + 1) & 1) * STAGE, next_head, part.begin + next * QUERIES, part.end);
        if (warp_first >= part.end) continue;
#pragma unroll 1
        for (int c = 0; c < QUERIES; c += CHUNK) {
            int query = first_query + c;
            if (!any_sees(query, CHUNK, warp_first, 16 * M, window)) continue;
            float s[M][CHUNK / 8][4], dp[M][CHUNK / 8][4];
            score(s, k, stage, c);
            score(dp, v, stage + TILE, c);
            if (!all_see(query, CHUNK, warp_first, 16 * M, window)) hide<true>(s, query, warp_first, window);
            differentiate_columns<QUERIES>(s, dp, stage + 2 * TILE + 4 * (c + 2 * t), a.scale * LOG2_E);
            weigh<D>(dv, s, stage + TILE, c);
            weigh<D>(dk, dp, stage, c);
        }
    }

    float one[M][2], scales[M][2];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) one[i / 2][i % 2] = 1, scales[i / 2][i % 2] = a.scale;
    store_rows<D>(a.dqkv + column, a.lddqkv, warp_first, part.end, dk, scales, keys, warp_row);
    store_rows<D>(a.dqkv + column + a.kv_heads * D, a.lddqkv, warp_first, part.end, dv, one, values, warp_row);
}

extern "C" __global__ void __launch_bounds__(128, 2) flash_backward_q_d64(const bf16* qkv, int ld, const int* parts, const bf16* dout, int lddo,
        const float* lse, const float* delta, bf16* dqkv, int lddqkv, int rows, int heads, int kv_heads, float scale, int window) {
    const BackwardArguments a = {qkv, ld, parts, dout, lddo, lse, delta, dqkv, lddqkv, rows, heads, kv_heads, scale, window};
    flash_backward_q<64, 64, 16, 2, 4, true>(a);
}

extern "C" __global__ void __launch_bounds__(256, 1) flash_backward_q_d96(const bf16* qkv, int ld, const int* parts, const bf16* dout, int lddo,
        const float* lse, const float* delta, bf16* dqkv, int lddqkv, int rows, int heads, int kv_heads, float scale, int window) {
    const BackwardArguments a = {qkv, ld, parts, dout, lddo, lse, delta, dqkv, lddqkv, rows, heads, kv_heads, scale, window};
    flash_backward_q<96, 32, 32, 1, 8, true>(a);
}

extern "C" __global__ void __launch_bounds__(256, 1) flash_backward_q_d128(const bf16* qkv, int ld, const int* parts, const bf16* dout, int lddo,
        const float* lse, const float* delta, bf16* dqkv, int lddqkv, int rows, int heads, int kv_heads, float scale, int window) {
    const BackwardArguments a = {qkv, ld, parts, dout, lddo, lse, delta, dqkv, lddqkv, rows, heads, kv_heads, scale, window};
    flash_backward_q<128, 32, 32, 1, 8, true>(a);
}

extern "C" __global__ void __launch_bounds__(128, 3) flash_backward_kv_d64(const bf16* qkv, int ld, const int* parts, const bf16* dout, int lddo,
        const float* lse, const float* delta, bf16* dqkv, int lddqkv, int rows, int heads, int kv_heads, float scale, int window) {
    const BackwardArguments a = {qkv, ld, parts, dout, lddo, lse, delta, dqkv, lddqkv, rows, heads, kv_heads, scale, window};
    flash_backward_kv<64, 64, 16, 1, 4, true>(a);
}

extern "C" __global__ void __launch_bounds__(128, 2) flash_backward_kv_d96(const bf16* qkv, int ld, const int* parts, const bf16* dout, int lddo,
        const float* lse, const float* delta, bf16* dqkv, int lddqkv, int rows, int heads, int kv_heads, float scale, int window) {
    const BackwardArguments a = {qkv, ld, parts, dout, lddo, lse, delta, dqkv, lddqkv, rows, heads, kv_heads, scale, window};
    flash_backward_kv<96, 32, 16, 1, 4, true>(a);
}

extern "C" __global__ void __launch_bounds__(128, 2) flash_backward_kv_d128(const bf16* qkv, int ld, const int* parts, const bf16* dout, int lddo,
        const float* lse, const float* delta, bf16* dqkv, int lddqkv, int rows, int heads, int kv_heads, float scale, int window) {
    const BackwardArguments a = {qkv, ld, parts, dout, lddo, lse, delta, dqkv, lddqkv, rows, heads, kv_heads, scale, window};
    flash_backward_kv<128, 32, 16, 1, 4, true>(a);
}
