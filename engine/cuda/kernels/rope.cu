// Rotary position embedding, in transformers' layout: the first `turned` columns of a head turn, column j with column j + turned/2; the others stay.

static __device__ __forceinline__ void load8(float (&x)[8], const float* from) {
    float4 low = *(const float4*)from, high = *(const float4*)(from + 4);
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

// rope turns the first `heads` heads, of d columns each, of every row of x in place, by the angles of the row's position; inverse (not 0) turns back, which is
// also the gradient. cos and sin are [positions, turned/2]. `turned` is a multiple of 16, d and ld are of eight. Any number of threads; rows*heads*turned/16 have
// work.
extern "C" __global__ void rope(bf16* x, int ld, const int* pos, const float* cos, const float* sin, int rows, int heads, int d, int turned, int inverse) {
    int pieces = turned / 16;  // of eight pairs
    long long n = (long long)rows * heads * pieces;
    for (long long i = grid_first(); i < n; i += grid_stride()) {
        long long row = i / (heads * pieces);
        int rest = i % (heads * pieces), piece = rest % pieces;
        bf16* at = x + row * ld + rest / pieces * d + 8 * piece;
        long long angle = (long long)pos[row] * (turned / 2) + 8 * piece;
        float low[8], high[8], c[8], s[8];
        load8(low, at);
        load8(high, at + turned / 2);
        load8(c, cos + angle);
        load8(s, sin + angle);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float turn = inverse ? -s[j] : s[j], l = low[j];
            low[j] = l * c[j] - high[j] * turn;
            high[j] = high[j] * c[j] + l * turn;
        }
        store8(at, low);
        store8(at + turned / 2, high);
    }
}
