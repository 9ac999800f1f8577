// Dropout with the draws of engine/lora: bit for bit the masks of the processor. A counter of Philox4x32-10 (Salmon et al., SC 2011) gives 128 bits, a
// draw of 16 bits for each of eight neighbouring elements. n and leading dimensions are multiples of eight. Any number of threads; rows*n/8 have work.
//
// key, in device memory, is engine.Key as lora.NewDropout mixes it: seed and micro-batch in the first number, the step in the second.

struct Draws {
    unsigned word[4];
};

static __device__ __forceinline__ Draws philox(unsigned long long key, unsigned c0, unsigned c1, unsigned c2, unsigned c3) {
    unsigned k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return Draws{{c0, c1, c2, c3}};
}

// A Mask is what a site's elements are multiplied by: 1/keep where the draw is not below the threshold, or 0.
struct Mask {
    unsigned long long key;
    unsigned site, step, threshold;
    float factor;
};

// make_mask rounds as lora.NewDropout does: p to a multiple of 2^-16, and then 1/(1-p) once.
static __device__ __forceinline__ Mask make_mask(float p, const unsigned long long* key, int site) {
    float threshold = fminf(roundf(p * 65536), 65535);
    return Mask{key[0], (unsigned)site, (unsigned)key[1], (unsigned)threshold, __fdiv_rn(1, 1 - threshold / 65536)};
}

// apply multiplies elements 8*i .. 8*i+7 of the site.
static __device__ __forceinline__ void apply(const Mask& m, float (&x)[8], long long i) {
    Draws d = philox(m.key, (unsigned)i, (unsigned)(i >> 32), m.site, m.step);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        unsigned draw = d.word[j / 2] >> 16 * (j % 2) & 0xffff;
        x[j] = __fmul_rn(x[j], draw < m.threshold ? 0 : m.factor);
    }
}

// dropout writes y = bf16(x * mask), y without gaps between its rows; it may be x if x has none. The first row is row `first` of the site.
extern "C" __global__ void dropout(const bf16* x, int ldx, bf16* y, int rows, int n, float p, const unsigned long long* key, int site, int first) {
    Mask m = make_mask(p, key, site);
    long long pieces = (long long)rows * (n / 8);
    for (long long i = grid_first(); i < pieces; i += grid_stride()) {
        float v[8];
        load8(v, x + i / (n / 8) * ldx + 8 * (i % (n / 8)));
        apply(m, v, i + (long long)first * (n / 8));
        store8(y + 8 * i, v);
    }
}

// dropout_add writes dx = bf16(dx + dxa * mask), the gradient's way through dropout; dxa has no gaps between its rows.
extern "C" __global__ void dropout_add(bf16* dx, int lddx, const bf16* dxa, int rows, int n, float p, const unsigned long long* key, int site, int first) {
    Mask m = make_mask(p, key, site);
    long long pieces = (long long)rows * (n / 8);
    for (long long i = grid_first(); i < pieces; i += grid_stride()) {
        bf16* to = dx + i / (n / 8) * lddx + 8 * (i % (n / 8));
        float sum[8], v[8];
        load8(sum, to);
        load8(v, dxa + 8 * i);
        apply(m, v, i + (long long)first * (n / 8));
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] = __fadd_rn(sum[j], v[j]);
        store8(to, sum);
    }
}
