// Plain passes over vectors and matrices. Any number of blocks of any size; n and lengths in elements.

// fill writes one value.
extern "C" __global__ void fill(float* y, float value, long long n) {
    for (long long i = grid_first(); i < n; i += grid_stride()) y[i] = value;
}

// cast_bf16 writes y[rows,cols] = bf16(scale * x[rows,cols]), x in f32: adapters' masters to the copies that are multiplied.
extern "C" __global__ void cast_bf16(const float* x, int ldx, bf16* y, int ldy, int rows, int cols, float scale) {
    long long n = (long long)rows * cols;
    for (long long i = grid_first(); i < n; i += grid_stride()) {
        long long row = i / cols, col = i % cols;
        y[row * ldy + col] = round_bf16(scale * x[row * ldx + col]);
    }
}

// add_bf16 writes y = bf16(y + x) for vectors of n elements, both at multiples of 16 bytes.
extern "C" __global__ void add_bf16(bf16* y, const bf16* x, long long n) {
    for (long long i = grid_first(); i < n / 8; i += grid_stride()) {
        float a[8], b[8];
        load8(a, y + 8 * i);
        load8(b, x + 8 * i);
#pragma unroll
        for (int j = 0; j < 8; j++) a[j] += b[j];
        store8(y + 8 * i, a);
    }
    long long last = n / 8 * 8 + grid_first();
    if (last < n) y[last] = round_bf16(widen(y[last]) + widen(x[last]));
}
