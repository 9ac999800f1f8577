// What the flash attention kernels share.
//
// One micro-batch is `rows` tokens: sequences one after the other, no padding between them. A row of qkv holds heads*D queries, kv_heads*D keys and
// kv_heads*D values. A block works on one part of one sequence, blockIdx.y of a list that the host makes (flash.go): {begin, end, first, 0}, for rows
// [first, first+ROWS) of the sequence [begin, end), and end = 0 where the list is longer than the batch needs. Parts are cut from each
// sequence's own beginning, so that the bits of a sequence do not depend on what else is in the batch, and a recorded launch serves all batches.
//
// Row i sees the keys max(begin, i-window+1) ... i; with window 0, all from begin. The scale must be positive.

#define LOG2_E 1.4426950408889634f
#define MINUS_INFINITY (-1.0f / 0.0f)

struct Part {
    int begin, end, first;
};

static __device__ __forceinline__ Part part_of(const int* parts) {
    const int* p = parts + 4 * blockIdx.y;
    Part part = {p[0], p[1], p[2]};
    return part;
}

// Tiles [from, to), counted from the sequence's beginning.
struct Range {
    int from, to;
};

// The window of rows that have none is as long as the batch.
static __device__ __forceinline__ int window_of(int window, int rows) { return window > 0 ? min(window, rows) : rows; }

static __device__ __forceinline__ Range keys_seen(Part part, int rows, int keys, int window) {
    int first = part.first - part.begin, last = min(part.first + rows, part.end) - part.begin;
    Range tiles = {max(0, first - window + 1) / keys, (last + keys - 1) / keys};
    return tiles;
}

static __device__ __forceinline__ Range queries_seeing(Part part, int keys, int rows, int window) {
    int first = part.first - part.begin, last = min(part.end - part.begin, first + keys - 1 + window);
    Range tiles = {first / rows, (last + rows - 1) / rows};
    return tiles;
}

// Whether some query of [query, query+queries) sees some key of [key, key+keys), and whether each sees each.
static __device__ __forceinline__ bool any_sees(int query, int queries, int key, int keys, int window) {
    return key < query + queries && query - (key + keys - 1) < window;
}

static __device__ __forceinline__ bool all_see(int query, int queries, int key, int keys, int window) {
    return key + keys - 1 <= query && query + queries - 1 - key < window;
}

// hide sets the scores of keys that a query does not see to minus infinity. The rows of s are queries from `query` on and its columns keys from
// `key` on, or the other way round.
template <bool KEYS_BY_QUERIES, int M, int N> static __device__ __forceinline__ void hide(float (&s)[M][N][4], int query, int key, int window) {
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    int distance = KEYS_BY_QUERIES ? query + 2 * t - (key + g) : query + g - (key + 2 * t);
#pragma unroll
    for (int i = 0; i < M * N * 4; i++) {
        int m = i / (N * 4), n = i / 4 % N, j = i % 4, row = 16 * m + 8 * (j / 2), column = 8 * n + j % 2;
        if ((unsigned)(KEYS_BY_QUERIES ? distance + column - row : distance + row - column) >= (unsigned)window) s[m][n][j] = MINUS_INFINITY;
    }
}

// load_tile starts to copy rows [row, row+ROWS) of a matrix, D columns of it, into a tile; rows from `end` on are zeros.
template <int D, int ROWS, int THREADS> static __device__ __forceinline__ void load_tile(Shared tile, const bf16* matrix, int ld, int row, int end) {
    const int PIECES = ROW_PIECES<D>, STEP = THREADS / PIECES;
    int first = threadIdx.x / PIECES, p = threadIdx.x % PIECES;
    if (p >= D / 8) return;
    const bf16* from = matrix + 8 * p;
    Shared to = tile + first * ROW_BYTES<D> + ((p ^ (first & 7)) << 4);  // STEP is a multiple of 8, so all of this thread's pieces are swizzled alike
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++) {
        int r = row + first + i * STEP;
        copy_async<16>(to + i * STEP * ROW_BYTES<D>, from + (long long)min(r, end - 1) * ld, r < end);
    }
}

// load_row_values starts to copy ROWS floats from each of two vectors.
template <int ROWS> static __device__ __forceinline__ void load_row_values(Shared to, const float* first, const float* second, int row, int end) {
    int i = threadIdx.x, r = row + i % ROWS;
    if (i < 2 * ROWS) copy_async<4>(to + 4 * i, (i < ROWS ? first : second) + min(r, end - 1), r < end);
}

// A warp's 16*M rows of a tile, as the left side of a product: in registers where there is room, else read from the tile each time.
template <int D, int M, bool KEEP> struct LeftRows {
    Shared tile;
    int row;
    unsigned kept[KEEP ? M : 1][KEEP ? D / 16 : 1][4];

    __device__ __forceinline__ void keep() {
#pragma unroll
        for (int i = 0; KEEP && i < M * D / 16; i++) load_left<D>(kept[i / (D / 16)][i % (D / 16)], tile, row + i / (D / 16) * 16, i % (D / 16) * 16);
    }
    __device__ __forceinline__ void get(unsigned (&a)[4], int m, int k) const {
        if (KEEP)
            a[0] = kept[m][k][0], a[1] = kept[m][k][1], a[2] = kept[m][k][2], a[3] = kept[m][k][3];
        else
            load_left<D>(a, tile, row + 16 * m, 16 * k);
    }
};

static __device__ __forceinline__ void zero(float (&c)[4]) { c[0] = c[1] = c[2] = c[3] = 0; }

template <int M, int N> static __device__ __forceinline__ void zero(float (&c)[M][N][4]) {
#pragma unroll
    for (int i = 0; i < M * N; i++) zero(c[i / N][i % N]);
}

// score is c = left * right^T, over rows [row, row+8*N) of the tile `right`.
template <int D, int M, int N, bool KEEP>
static __device__ __forceinline__ void score(float (&c)[M][N][4], const LeftRows<D, M, KEEP>& left, Shared right, int row) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned a[M][4], b[4];
#pragma unroll
        for (int m = 0; m < M; m++) left.get(a[m], m, k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_right_transposed<D>(b, right, row + 8 * n, 16 * k);
#pragma unroll
            for (int m = 0; m < M; m++) {
                if (k == 0) zero(c[m][n]), zero(c[m][n + 1]);
                multiply_add(c[m][n], a[m], b[0], b[1]), multiply_add(c[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// weigh is c += p * right, p rounded to bf16, over rows [row, row+8*N) of the tile `right`.
template <int D, int M, int N> static __device__ __forceinline__ void weigh(float (&c)[M][D / 8][4], const float (&p)[M][N][4], Shared right, int row) {
#pragma unroll
    for (int k = 0; k < N; k += 2) {
        unsigned a[M][4], b[4];
#pragma unroll
        for (int m = 0; m < M; m++) as_left(a[m], p[m][k], p[m][k + 1]);
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            load_right<D>(b, right, row + 8 * k, 8 * n);
#pragma unroll
            for (int m = 0; m < M; m++) multiply_add(c[m][n], a[m], b[0], b[1]), multiply_add(c[m][n + 1], a[m], b[2], b[3]);
        }
    }
}

// store_rows writes a warp's 16*M rows, those before `end`, times a factor for each row of the lane. They pass through the warp's own rows of a
// tile nobody else reads, so that each lane writes 16 bytes of a row.
template <int D, int M>
static __device__ __forceinline__ void store_rows(bf16* out, int ld, int first, int end, const float (&c)[M][D / 8][4], const float (&factor)[M][2],
                                                  Shared tile, int row) {
    int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                store_pair(tile + (row + 16 * m + 8 * h + g) * ROW_BYTES<D> + ((n ^ g) << 4) + 4 * t,
                           pack_bf16(c[m][n][2 * h] * factor[m][h], c[m][n][2 * h + 1] * factor[m][h]));
    __syncwarp();
    const int PIECES = ROW_PIECES<D>;
#pragma unroll
    for (int i = 0; i < 16 * M; i += WARP / PIECES) {
        int r = i + lane / PIECES, p = lane % PIECES;
        if (p < D / 8 && first + r < end) copy_out(out + (long long)(first + r) * ld + 8 * p, tile + (row + r) * ROW_BYTES<D> + ((p ^ (r & 7)) << 4));
    }
}

// The running maximum and sum of a lane's rows; the sum is of the lane's own columns until the end.
template <int M> struct RowStatistics {
    float largest[M][2], sum[M][2];
};

// soften turns scores into weights 2^(unit * (score - largest)) and brings what was added up before to the new maximum.
template <int D, int M, int N>
static __device__ __forceinline__ void soften(RowStatistics<M>& rows, float (&s)[M][N][4], float (&o)[M][D / 8][4], float unit) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float before = rows.largest[m][h], largest = before, sum = 0;
#pragma unroll
            for (int n = 0; n < N; n++) largest = fmaxf(largest, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
            largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
            float shift = largest == MINUS_INFINITY ? 0.0f : largest * unit;  // a window may hide a whole tile from a row
            float factor = power_of_two(before * unit - shift);
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++) sum += s[m][n][i] = power_of_two(s[m][n][i] * unit - shift);
#pragma unroll
            for (int n = 0; n < D / 8; n++) o[m][n][2 * h] *= factor, o[m][n][2 * h + 1] *= factor;
            rows.largest[m][h] = largest, rows.sum[m][h] = rows.sum[m][h] * factor + sum;
        }
}

template <int M> static __device__ __forceinline__ void clear(RowStatistics<M>& rows) {
#pragma unroll
    for (int i = 0; i < 2 * M; i++) rows.largest[i / 2][i % 2] = MINUS_INFINITY, rows.sum[i / 2][i % 2] = 0;
}
