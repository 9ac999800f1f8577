// The gradient as a whole: its norm, and its way into the exact sum of all nodes.

// square_sum writes the sum of squares of a block's elements to partial[block]; squares of f32 are exact in f64. The order of additions depends on n and the grid alone.
// 256 threads a block.
extern "C" __global__ void __launch_bounds__(256) square_sum(const float* x, double* partial, long long n) {
    __shared__ double of_thread[256];
    double sum = 0;
    for (long long i = grid_first(); i < n; i += grid_stride()) sum = __dadd_rn(sum, __dmul_rn(x[i], x[i]));
    of_thread[threadIdx.x] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) of_thread[threadIdx.x] += of_thread[threadIdx.x + half];
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = of_thread[0];
}

// norm writes the root of the sum of n partial sums, one after the other. One thread.
extern "C" __global__ void norm(const double* partial, double* root, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum = __dadd_rn(sum, partial[i]);
    *root = sqrt(sum);
}

// units is how many of its units element i is. The unit is 2^unit_log2, or 2^units[i]; multiplication by a power of two is exact.
static __device__ __forceinline__ double in_units(float g, const signed char* units, int unit_log2, long long i) {
    int exponent = units ? units[i] : unit_log2;
    return __dmul_rn(g, __longlong_as_double((1023LL - exponent) << 52));
}

// check_range sets *bad if an element is NaN, infinite or not below 2^62 / *micros units, as allreduce.Accum refuses a micro-batch. Any number of threads.
extern "C" __global__ void check_range(const float* g, const signed char* units, int unit_log2, const int* micros, int* bad, long long n) {
    double limit = 4611686018427387904.0 / *micros;
    for (long long i = grid_first(); i < n; i += grid_stride())
        if (!(fabs(in_units(g[i], units, unit_log2, i)) < limit)) atomicOr(bad, 1);
}

// to_fixed adds each element, rounded to the nearest multiple of its unit (ties to even), to the sum in fixed point; nothing if *skip, which may be 0 for
// no: a micro-batch counts as a whole or not at all.
extern "C" __global__ void to_fixed(const float* g, const signed char* units, int unit_log2, const int* skip, long long* sum, long long n) {
    if (skip && *skip) return;
    for (long long i = grid_first(); i < n; i += grid_stride()) sum[i] += __double2ll_rn(in_units(g[i], units, unit_log2, i));
}
