// argmax writes to best[row] which of the n elements of a row of x is the largest; of equal ones the first. One block for each row, with a multiple of WARP threads.
// NaN is never the largest; a row of nothing else gives 0.

struct Candidate {
    float value;
    int at;
};

// better is the one of two that is kept, whichever order they come in.
static __device__ __forceinline__ Candidate better(Candidate a, Candidate b) {
    bool second = b.value > a.value || (b.value == a.value && b.at < a.at);
    return second ? b : a;
}

static __device__ __forceinline__ Candidate warp_best(Candidate c) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
        Candidate other = {__shfl_xor_sync(ALL_LANES, c.value, lanes), __shfl_xor_sync(ALL_LANES, c.at, lanes)};
        c = better(c, other);
    }
    return c;
}

extern "C" __global__ void __launch_bounds__(1024) argmax(const float* x, int* best, int rows, int n) {
    __shared__ Candidate of_warps[WARP];
    long long row = blockIdx.x;
    if (row >= rows) return;
    Candidate mine = {-INFINITY, 0};
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float v = x[row * n + i];
        if (v > mine.value) mine.value = v, mine.at = i;
    }
    mine = warp_best(mine);
    if (threadIdx.x % WARP == 0) of_warps[threadIdx.x / WARP] = mine;
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    Candidate none = {-INFINITY, 0};
    mine = warp_best(threadIdx.x < blockDim.x / WARP ? of_warps[threadIdx.x] : none);
    if (threadIdx.x == 0) best[row] = mine.at;
}
