// Copies of rows, by index: one block for each row that is written or skipped, n a multiple of eight. And of parts of matrices.

static __device__ __forceinline__ void copy_row(const bf16* from, bf16* to, int n) {
    for (int c = 8 * threadIdx.x; c < n; c += 8 * blockDim.x) *(uint4*)(to + c) = *(const uint4*)(from + c);
}

// embed_gather writes x[i] = table[ids[i]] for `rows` rows.
extern "C" __global__ void embed_gather(const int* ids, const bf16* table, bf16* x, int rows, int hidden) {
    long long row = blockIdx.x;
    if (row < rows) copy_row(table + (long long)ids[row] * hidden, x + row * hidden, hidden);
}

// gather_rows writes y[i] = x[index[i]], and zeros where the index is negative.
extern "C" __global__ void gather_rows(const bf16* x, const int* index, bf16* y, int rows, int n) {
    long long row = blockIdx.x;
    if (row >= rows) return;
    int from = index[row];
    if (from >= 0) return copy_row(x + (long long)from * n, y + row * n, n);
    for (int c = 8 * threadIdx.x; c < n; c += 8 * blockDim.x) *(uint4*)(y + row * n + c) = make_uint4(0, 0, 0, 0);
}

// scatter_rows writes y[index[i]] = x[i], and nothing where the index is negative; other rows of y stay. No index occurs twice. y has a leading dimension.
extern "C" __global__ void scatter_rows(const bf16* x, const int* index, bf16* y, int ldy, int rows, int n) {
    long long row = blockIdx.x;
    if (row < rows && index[row] >= 0) copy_row(x + row * n, y + (long long)index[row] * ldy, n);
}

// copy_matrix writes y[rows,cols] = x[rows,cols]; columns and leading dimensions are multiples of eight. Any number of threads; rows*cols/8 have work.
extern "C" __global__ void copy_matrix(const bf16* x, int ldx, bf16* y, int ldy, int rows, int cols) {
    long long pieces = (long long)rows * (cols / 8);
    for (long long i = grid_first(); i < pieces; i += grid_stride()) {
        long long row = i / (cols / 8);
        int c = 8 * (i % (cols / 8));
        *(uint4*)(y + row * ldy + c) = *(const uint4*)(x + row * ldx + c);
    }
}
