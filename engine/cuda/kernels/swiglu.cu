// h = silu(gate) * up, and its gradient. A row of gu is n columns of gate, then n of up. n and leading dimensions are multiples of eight. Any number of
// threads; rows*n/8 have work.

static __device__ __forceinline__ float sigmoid(float x) { return 1 / (1 + __expf(-x)); }

extern "C" __global__ void swiglu_forward(const bf16* gu, bf16* h, int rows, int n, int ldgu, int ldh) {
    long long pieces = (long long)rows * (n / 8);
    for (long long i = grid_first(); i < pieces; i += grid_stride()) {
        long long row = i / (n / 8);
        int c = 8 * (i % (n / 8));
        float gate[8], up[8];
        load8(gate, gu + row * ldgu + c);
        load8(up, gu + row * ldgu + n + c);
#pragma unroll
        for (int j = 0; j < 8; j++) up[j] *= gate[j] * sigmoid(gate[j]);
        store8(h + row * ldh + c, up);
    }
}

// swiglu_backward writes the gradients by gate and up to dgu, and h again unless it is 0, for the gradient of the projection that follows. dgu may be gu, and h may
// be dh; both pairs have one leading dimension.
extern "C" __global__ void swiglu_backward(const bf16* dh, const bf16* gu, bf16* dgu, bf16* h, int rows, int n, int lddh, int ldgu) {
    long long pieces = (long long)rows * (n / 8);
    for (long long i = grid_first(); i < pieces; i += grid_stride()) {
        long long row = i / (n / 8);
        int c = 8 * (i % (n / 8));
        float gate[8], up[8], d[8], product[8];
        load8(gate, gu + row * ldgu + c);
        load8(up, gu + row * ldgu + n + c);
        load8(d, dh + row * lddh + c);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float s = sigmoid(gate[j]), silu = gate[j] * s;
            product[j] = silu * up[j];
            gate[j] = d[j] * up[j] * s * (1 + gate[j] * (1 - s));
            up[j] = d[j] * silu;
        }
        store8(dgu + row * ldgu + c, gate);
        store8(dgu + row * ldgu + n + c, up);
        if (h) store8(h + row * lddh + c, product);
    }
}
