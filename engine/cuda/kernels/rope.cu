// Rotary position embedding, in transformers' layout: column j of a head turns with column j + d/2.

static __device__ __forceinline__ void load8(float (&x)[8], const float* from) {
    float4 low = *(const float4*)from, high = *(const float4*)(from + 4);
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

// rope turns the first `heads` heads, of d columns each, of every row of x in place, by the angles of the row's position; inverse (not 0) turns back, which is
// also the gradient. cos and sin are [positions, d/2]. d is a multiple of 16 and ld of eight. Any number of threads; rows*heads*d/16 have work.
extern "C" __global__ void rope(bf16* x, int ld, const int* pos, const float* cos, const float* sin, int rows, int heads, int d, int inverse) {
    int pieces = d / 16;  // of eight pairs
    long long n = (long long)rows * heads * pieces;
    for (long long i = grid_first(); i < n; i += grid_stride()) {
        long long row = i / (heads * pieces);
        int rest = i % (heads * pieces), piece = rest % pieces;
        bf16* at = x + row * ld + rest / pieces * d + 8 * piece;
        long long angle = (long long)pos[row] * (d / 2) + 8 * piece;
        float low[8], high[8], c[8], s[8];
        load8(low, at);
        load8(high, at + d / 2);
        load8(c, cos + angle);
        load8(s, sin + angle);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float turn = inverse ? -s[j] : s[j], l = low[j];
            low[j] = l * c[j] - high[j] * turn;
            high[j] = high[j] * c[j] + l * turn;
        }
        store8(at, low);
        store8(at + d / 2, high);
    }
}
