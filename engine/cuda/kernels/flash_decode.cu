// Attention of one new row of each of many sequences to the keys and values of all rows before it, which a cache keeps; and how they come there.
//
//   cache [sequences*capacity, 2*kv_heads*D] bf16: of each position its keys (turned) and its values; a sequence has `capacity` positions
//   seen  [sequences] how many positions of a sequence there are, the new one included; 0: there is no sequence
//
// A block takes SPAN keys for up to 16 query heads that share them, as the 16 rows of a tensor core's product; each of its four warps takes a quarter of each tile.
// What a warp has found goes to memory of its own, and flash_decode_sum brings it together in one order. Which keys a warp gets follows from their positions
// alone: so a sequence's bits do not depend on its company, nor on how much room there is.

#define SPAN 256
#define TILE_KEYS 64
#define WARPS 4

// cache_rows writes the first n columns of row i of x to row place[i] of the cache, unless that is negative. n and ld are multiples of eight.
extern "C" __global__ void cache_rows(const bf16* x, int ld, const int* place, bf16* cache, int rows, int n) {
    long long row = blockIdx.x;
    if (row >= rows || place[row] < 0) return;
    const bf16* from = x + row * ld;
    bf16* to = cache + (long long)place[row] * n;
    for (int c = 8 * threadIdx.x; c < n; c += 8 * blockDim.x) *(uint4*)(to + c) = *(const uint4*)(from + c);
}

// The first key that a sequence's last row sees.
static __device__ __forceinline__ int first_seen(int seen, int window) { return window > 0 ? max(0, seen - window) : 0; }

// mask sets the scores of keys outside of [from, to) to minus infinity; the columns of s are keys from `key` on.
static __device__ __forceinline__ void mask(float (&s)[1][2][4], int key, int from, int to) {
    int t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int column = key + 8 * (i / 4) + 2 * t + i % 2;
        if (column < from || column >= to) s[0][i / 4][i % 4] = MINUS_INFINITY;
    }
}

// leave writes what a warp has found for `heads` rows: the sums of weighted values, their largest exponent (of 2), and the sum of weights.
template <int D>
static __device__ __forceinline__ void leave(float* sums, float* statistics, int part, int parts, int heads, const float (&o)[1][D / 8][4],
                                             const RowStatistics<1>& rows, float unit) {
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = rows.sum[0][h];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        if (g + 8 * h >= heads) continue;
        long long at = (long long)(g + 8 * h) * parts + part;
        if (t == 0) *(float2*)(statistics + 2 * at) = make_float2(rows.largest[0][h] * unit, sum);
#pragma unroll
        for (int n = 0; n < D / 8; n++) *(float2*)(sums + at * D + 8 * n + 2 * t) = make_float2(o[0][n][2 * h], o[0][n][2 * h + 1]);
    }
}

template <int D>
static __device__ __forceinline__ void flash_decode(const bf16* qkv, int ld, const bf16* cache, const int* seen, float* sums, float* statistics, int capacity,
                                                    int heads, int kv_heads, float scale, int window) {
    const int THREADS = WARPS * WARP, TILE = TILE_KEYS * ROW_BYTES<D>;
    int sequence = blockIdx.y, end = seen[sequence], begin = first_seen(end, window), row = threadIdx.x / WARP * 16;
    int from = max((int)blockIdx.z * SPAN, begin / TILE_KEYS * TILE_KEYS), to = min(end, (int)(blockIdx.z + 1) * SPAN);
    if (from >= to) return;
    int shared = heads / kv_heads, groups = (shared + 15) / 16, kv = blockIdx.x / groups, first = blockIdx.x % groups * 16, head = kv * shared + first;
    int ldc = 2 * kv_heads * D;
    const bf16* k = cache + (long long)sequence * capacity * ldc + kv * D;
    const bf16* v = k + kv_heads * D;

    Shared queries = dynamic_shared(), stages = queries + 16 * ROW_BYTES<D>;
    load_tile<D, 16, THREADS>(queries, qkv + (long long)sequence * ld + head * D, D, 0, min(16, shared - first));
    load_tile<D, TILE_KEYS, THREADS>(stages, k, ldc, from, end);
    load_tile<D, TILE_KEYS, THREADS>(stages + TILE, v, ldc, from, end);

    LeftRows<D, 1, true> q;
    q.tile = queries, q.row = 0;
    float o[1][D / 8][4], s[1][2][4], unit = scale * LOG2_E;
    RowStatistics<1> rows;
    zero(o);
    clear(rows);
    for (int key = from, turn = 0; key < to; key += TILE_KEYS, turn ^= 1) {
        Shared stage = stages + turn * (2 * TILE), other = stages + (turn ^ 1) * (2 * TILE);
        copy_wait();
        __syncthreads();
        if (key == from) q.keep();
        if (key + TILE_KEYS < to) {
            load_tile<D, TILE_KEYS, THREADS>(other, k, ldc, key + TILE_KEYS, end);
            load_tile<D, TILE_KEYS, THREADS>(other + TILE, v, ldc, key + TILE_KEYS, end);
        }
        score(s, q, stage, row);
        mask(s, key + row, begin, end);
        soften<D>(rows, s, o, unit);
        weigh<D>(o, s, stage + TILE, row);
    }

    int parts = gridDim.z * WARPS;
    long long mine = ((long long)sequence * heads + head) * parts;
    leave<D>(sums + mine * D, statistics + 2 * mine, blockIdx.z * WARPS + threadIdx.x / WARP, parts, min(16, shared - first), o, rows, unit);
}

extern "C" __global__ void __launch_bounds__(128) flash_decode_d64(const bf16* qkv, int ld, const bf16* cache, const int* seen, float* sums, float* statistics,
        int capacity, int heads, int kv_heads, float scale, int window) {
    flash_decode<64>(qkv, ld, cache, seen, sums, statistics, capacity, heads, kv_heads, scale, window);
}

extern "C" __global__ void __launch_bounds__(128) flash_decode_d96(const bf16* qkv, int ld, const bf16* cache, const int* seen, float* sums, float* statistics,
        int capacity, int heads, int kv_heads, float scale, int window) {
    flash_decode<96>(qkv, ld, cache, seen, sums, statistics, capacity, heads, kv_heads, scale, window);
}

extern "C" __global__ void __launch_bounds__(128) flash_decode_d128(const bf16* qkv, int ld, const bf16* cache, const int* seen, float* sums, float* statistics,
        int capacity, int heads, int kv_heads, float scale, int window) {
    flash_decode<128>(qkv, ld, cache, seen, sums, statistics, capacity, heads, kv_heads, scale, window);
}

// flash_decode_sum brings together what the warps have found: o [sequences, ldo], zeros where there is no sequence. A warp for each head of each
// sequence, and a multiple of WARP threads. `parts` is flash_decode's: WARPS for each of its spans.
extern "C" __global__ void flash_decode_sum(const float* sums, const float* statistics, const int* seen, bf16* o, int ldo, int sequences, int heads, int d, int parts, int window) {
    long long head = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (head >= (long long)sequences * heads) return;
    int sequence = head / heads, end = seen[sequence];
    int from = first_seen(end, window) / TILE_KEYS * TILE_KEYS / SPAN * WARPS, to = (end + SPAN - 1) / SPAN * WARPS;
    sums += head * parts * d, statistics += 2 * head * parts;
    float largest = MINUS_INFINITY, weights = 0;
    for (int p = from; p < to; p++) largest = fmaxf(largest, statistics[2 * p]);
    for (int p = from; p < to; p++) weights += statistics[2 * p + 1] * power_of_two(statistics[2 * p] - largest);
    for (int c = 2 * (threadIdx.x % WARP); c < d; c += 2 * WARP) {
        float x = 0, y = 0;
        for (int p = from; p < to; p++) {
            float2 sum = *(const float2*)(sums + (long long)p * d + c);
            float factor = power_of_two(statistics[2 * p] - largest);
            x += sum.x * factor, y += sum.y * factor;
        }
        float factor = to > from ? 1 / weights : 0;
        *(unsigned*)(o + (long long)sequence * ldo + head % heads * d + c) = pack_bf16(x * factor, y * factor);
    }
}
