// Kernels with the mistakes that the emulator is there for, each beside what it should have been.

// reversed writes y[i] = x[n-1-i] through shared memory; without the barrier a thread may read what nobody has written yet.
static __device__ __forceinline__ void reverse(float* x, int n, bool barrier) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    x[threadIdx.x] = tile[n - 1 - threadIdx.x];
}

extern "C" __global__ void reversed(float* x, int n) { reverse(x, n, true); }
extern "C" __global__ void missing_barrier(float* x, int n) { reverse(x, n, false); }

extern "C" __global__ void divergent_barrier(float* x, int n) {
    if (threadIdx.x < n / 2)
        __syncthreads();
    else
        __syncthreads();
    x[threadIdx.x] = 1;
}

extern "C" __global__ void absent_thread(float* x, int n) {
    if (threadIdx.x == n - 1) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}

extern "C" __global__ void absent_lane(float* x, int n) {
    if (threadIdx.x == n - 1) return;
    x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}

extern "C" __global__ void unnamed_lane(float* x, int n) { x[threadIdx.x] = __shfl_sync(0x7fffffffu, x[threadIdx.x], 0); }

extern "C" __global__ void uninitialised(float* x, int n) {
    __shared__ float tile[64];
    if (n == 0) tile[threadIdx.x] = 0;  // or the compiler knows that nobody writes it
    x[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void beyond_allocation(float* x, int n) { x[threadIdx.x + 1] = 1; }

extern "C" __global__ void read_beyond(float* x, int n) {
    x[threadIdx.x] = x[threadIdx.x + 1];
}

extern "C" __global__ void beyond_shared(float* x, int n) { ((float*)EMULATED_DYNAMIC_SHARED)[threadIdx.x] = x[threadIdx.x]; }

// halves sums each half of a warp by itself: exchanges of some lanes only.
extern "C" __global__ void halves(float* x, int n) {
    unsigned mask = threadIdx.x < 16 ? 0xffffu : 0xffff0000u;
    float v = x[threadIdx.x];
    for (int lanes = threadIdx.x < 16 ? 8 : 0; lanes > 0; lanes /= 2) v += __shfl_xor_sync(mask, v, lanes);
    x[threadIdx.x] = v + __popc(__ballot_sync(mask, v > 0)) + __syncthreads_count(threadIdx.x < 3);
}

extern "C" __global__ void increment(float* x, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) x[i] += 1;
}
