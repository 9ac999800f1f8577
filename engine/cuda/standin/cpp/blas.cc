// Stand-in libcublas.so.12 and libcublasLt.so.12: matrix products with operands in f32 or bf16, added up in f32. Matrices are column-major, as cuBLAS
// has them.
#include <cstring>

#include "driver.h"

namespace {

struct Handle {
    CUstream_st* stream = nullptr;
};

enum { blas_success = 0, blas_not_initialized = 1, blas_invalid_value = 7, blas_execution_failed = 13, blas_not_supported = 15 };
enum { type_f32 = 0, type_bf16 = 14 };  // cudaDataType_t

float load(const void* p, int type, size_t i) {
    if (type == type_f32) return ((const float*)p)[i];
    return emulate_bits<float>(unsigned(((const unsigned short*)p)[i]) << 16);
}

unsigned short round_bf16(float f) {
    unsigned bits = emulate_bits<unsigned>(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

void store(void* p, int type, size_t i, float f) {
    if (type == type_f32)
        ((float*)p)[i] = f;
    else
        ((unsigned short*)p)[i] = round_bf16(f);
}

struct Operand {
    const void* at;
    int type;
    size_t ld;
    bool transposed;
    size_t index(size_t row, size_t col) const { return transposed ? row * ld + col : col * ld + row; }
    size_t extent(size_t rows, size_t cols) const { return rows && cols ? index(rows - 1, cols - 1) + 1 : 0; }
    bool held(size_t rows, size_t cols) const { return standin::holds((uintptr_t)at, extent(rows, cols) * (type == type_f32 ? 4 : 2)); }
    // copy is the matrix in f32 with the inner dimension k first: element (row, k) at row*k_count + k.
    std::vector<float> rows(size_t n, size_t k) const {
        std::vector<float> v(n * k);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < k; j++) v[i * k + j] = load(at, type, index(i, j));
        return v;
    }
};

struct Product {
    size_t m, n, k;
    float alpha, beta;
    Operand a, b, c;
    bool in_sequence = false;  // another order of the sums

    void run() const {
        Operand turned = b;
        turned.transposed = !b.transposed;
        std::vector<float> left = a.rows(m, k), right = turned.rows(n, k);
        for (size_t j = 0; j < n; j++)
            for (size_t i = 0; i < m; i++) element(i, j, &left[i * k], &right[j * k]);
    }

    // Eight interleaved sums: some order, and fast.
    void element(size_t i, size_t j, const float* x, const float* y) const {
        float s[8] = {};
        size_t l = 0;
        for (; !in_sequence && l + 8 <= k; l += 8)
            for (int u = 0; u < 8; u++) s[u] += x[l + u] * y[l + u];
        for (; l < k; l++) s[0] += x[l] * y[l];
        float sum = alpha * (((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])));
        size_t at = c.index(i, j);
        if (beta != 0) sum += beta * load(c.at, c.type, at);
        store(const_cast<void*>(c.at), c.type, at, sum);
    }

    bool held() const { return a.held(m, k) && b.held(k, n) && c.held(m, n); }
};

int enqueue(CUstream_st* stream, Product p, double milliseconds = 0) {
    if ((p.a.type != type_f32 && p.a.type != type_bf16) || p.a.type != p.b.type || (p.c.type != type_f32 && p.c.type != type_bf16)) return blas_not_supported;
    size_t a_rows = p.a.transposed ? p.k : p.m, b_rows = p.b.transposed ? p.n : p.k;
    if (p.a.ld < a_rows || p.b.ld < b_rows || p.c.ld < p.m || !p.held()) return blas_invalid_value;
    if (p.m == 0 || p.n == 0) return blas_success;
    return standin::enqueue(stream, [p, milliseconds] { p.run(), standin::device().clock += milliseconds; }) == success ? blas_success : blas_execution_failed;
}

const char* advance(const void* p, int type, long long elements) { return (const char*)p + elements * (type == type_f32 ? 4 : 2); }

}  // namespace

API cublasCreate_v2(Handle** h) { return *h = new Handle, standin::ready() == success ? blas_success : blas_not_initialized; }
API cublasDestroy_v2(Handle* h) { return delete h, blas_success; }
API cublasGetVersion_v2(Handle*, int* v) { return *v = 120205, blas_success; }
API cublasGetProperty(int type, int* v) { return *v = type == 0 ? 12 : type == 1 ? 2 : 5, blas_success; }
API cublasSetStream_v2(Handle* h, CUstream_st* s) { return h->stream = s, blas_success; }
API cublasGetStream_v2(Handle* h, CUstream_st** s) { return *s = h->stream, blas_success; }
API cublasSetWorkspace_v2(Handle*, void* at, size_t bytes) { return standin::holds((uintptr_t)at, bytes) ? blas_success : blas_invalid_value; }
API cublasSetMathMode(Handle*, int) { return blas_success; }
API cublasSetAtomicsMode(Handle*, int) { return blas_success; }
API cublasSetPointerMode_v2(Handle*, int mode) { return mode == 0 ? blas_success : blas_not_supported; }
extern "C" __attribute__((visibility("default"))) const char* cublasGetStatusString(int) { return "stand-in cuBLAS error"; }
extern "C" __attribute__((visibility("default"))) const char* cublasGetStatusName(int) { return "CUBLAS_STATUS_STANDIN"; }

API cublasGemmEx(Handle* h, int ta, int tb, int m, int n, int k, const float* alpha, const void* a, int type_a, int lda, const void* b, int type_b, int ldb,
                 const float* beta, void* c, int type_c, int ldc, int, int) {
    LOCKED;
    if (!h) return blas_not_initialized;
    if (m < 0 || n < 0 || k < 0) return blas_invalid_value;
    return enqueue(h->stream, Product{size_t(m), size_t(n), size_t(k), *alpha, *beta, {a, type_a, size_t(lda), ta != 0}, {b, type_b, size_t(ldb), tb != 0}, {c, type_c, size_t(ldc), false}});
}

API cublasGemmStridedBatchedEx(Handle* h, int ta, int tb, int m, int n, int k, const float* alpha, const void* a, int type_a, int lda, long long stride_a,
                               const void* b, int type_b, int ldb, long long stride_b, const float* beta, void* c, int type_c, int ldc, long long stride_c,
                               int batch, int compute, int algorithm) {
    for (int i = 0; i < batch; i++)
        TRY(cublasGemmEx(h, ta, tb, m, n, k, alpha, advance(a, type_a, i * stride_a), type_a, lda, advance(b, type_b, i * stride_b), type_b, ldb, beta,
                         (void*)advance(c, type_c, i * stride_c), type_c, ldc, compute, algorithm));
    return blas_success;
}

API cublasSgemm_v2(Handle* h, int ta, int tb, int m, int n, int k, const float* alpha, const float* a, int lda, const float* b, int ldb, const float* beta, float* c, int ldc) {
    return cublasGemmEx(h, ta, tb, m, n, k, alpha, a, type_f32, lda, b, type_f32, ldb, beta, c, type_f32, ldc, 68, -1);
}

// cuBLASLt.

namespace {

enum { desc_transa = 3, desc_transb = 4, pref_workspace = 1, pref_reduction = 3, pref_align_a = 5, pref_align_c = 7, reduction_in_place = 1 };

struct Desc {
    int compute, transposed[2];
};

struct Layout {
    int type;
    size_t rows, cols, ld;
};

struct Preference {
    uint64_t workspace = 0;
    unsigned reduction = 7, align[4] = {256, 256, 256, 256};
};

// A Choice is what is in the 64 bytes that a program keeps of an algorithm.
struct Choice {
    uint64_t kind, align[3], shape, unused[3];
};

struct Heuristic {
    Choice algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

// The kinds, in the heuristic's order: what it says is fastest; a faster one that adds in another order; one with the first one's bits that is faster; the
// fastest, which adds partial sums in the output's type.
struct Kind {
    double milliseconds;
    bool in_sequence;
    size_t workspace;
    unsigned reduction;
};
const Kind kinds[] = {{4, false, 1 << 20, 2}, {1, true, 0, 0}, {2, false, 0, 0}, {0.5, true, 0, reduction_in_place}};

uint64_t shape_of(const Desc* d, const Layout* a, const Layout* b, const Layout* c) {
    uint64_t h = 14695981039346656037u;
    for (uint64_t v : {uint64_t(d->transposed[0]), uint64_t(d->transposed[1]), uint64_t(a->type), a->rows, a->cols, a->ld, b->rows, b->cols, b->ld, uint64_t(c->type), c->rows, c->cols, c->ld})
        h = (h ^ v) * 1099511628211u;
    return h;
}

Operand operand(const void* at, const Layout* l, bool transposed) { return Operand{at, l->type, l->ld, transposed}; }

}  // namespace

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 120205; }
API cublasLtCreate(void** h) { return *h = &standin::device(), standin::ready() == success ? blas_success : blas_not_initialized; }
API cublasLtDestroy(void*) { return blas_success; }
API cublasLtMatmulDescCreate(Desc** d, int compute, int scale) { return *d = new Desc{compute, {0, 0}}, compute == 68 && scale == 0 ? blas_success : blas_not_supported; }
API cublasLtMatmulDescDestroy(Desc* d) { return delete d, blas_success; }
API cublasLtMatmulDescSetAttribute(Desc* d, int attribute, const void* value, size_t bytes) {
    if (bytes != 4 || (attribute != desc_transa && attribute != desc_transb)) return blas_invalid_value;
    memcpy(&d->transposed[attribute - desc_transa], value, 4);
    return blas_success;
}
API cublasLtMatrixLayoutCreate(Layout** l, int type, uint64_t rows, uint64_t cols, int64_t ld) { return *l = new Layout{type, rows, cols, size_t(ld)}, ld < int64_t(rows) ? blas_invalid_value : blas_success; }
API cublasLtMatrixLayoutDestroy(Layout* l) { return delete l, blas_success; }
API cublasLtMatmulPreferenceCreate(Preference** p) { return *p = new Preference, blas_success; }
API cublasLtMatmulPreferenceDestroy(Preference* p) { return delete p, blas_success; }
API cublasLtMatmulPreferenceSetAttribute(Preference* p, int attribute, const void* value, size_t bytes) {
    if (attribute == pref_workspace && bytes == 8) return memcpy(&p->workspace, value, 8), blas_success;
    if (bytes != 4) return blas_invalid_value;
    if (attribute == pref_reduction) return memcpy(&p->reduction, value, 4), blas_success;
    if (attribute < pref_align_a || attribute > pref_align_a + 3) return blas_invalid_value;
    return memcpy(&p->align[attribute - pref_align_a], value, 4), blas_success;
}

// Products of one column are not known here, so that a program is seen to go another way.
API cublasLtMatmulAlgoGetHeuristic(void*, const Desc* d, const Layout* a, const Layout* b, const Layout* c, const Layout*, const Preference* p, int most, Heuristic* found, int* count) {
    *count = 0;
    if (c->rows == 1) return blas_not_supported;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && *count < most; i++) {
        if (kinds[i].workspace > p->workspace || (kinds[i].reduction & ~p->reduction)) continue;
        found[(*count)++] = Heuristic{{i, {p->align[0], p->align[1], p->align[2]}, shape_of(d, a, b, c), {}}, kinds[i].workspace, blas_success, 1, {}};
    }
    return blas_success;
}

API cublasLtMatmulAlgoCheck(void*, const Desc* d, const Layout* a, const Layout* b, const Layout* c, const Layout*, const Choice* algo, Heuristic* result) {
    if (algo->kind >= sizeof kinds / sizeof *kinds || algo->shape != shape_of(d, a, b, c)) return blas_invalid_value;
    *result = Heuristic{*algo, kinds[algo->kind].workspace, blas_success, 1, {}};
    return blas_success;
}

// The algorithm must be of this shape, and operands aligned as was said when it was asked for.
API cublasLtMatmul(void*, const Desc* d, const float* alpha, const void* a, const Layout* la, const void* b, const Layout* lb, const float* beta, const void* c, const Layout* lc, void* out,
                   const Layout*, const Choice* algo, void* workspace, size_t bytes, CUstream_st* stream) {
    LOCKED;
    const Kind& kind = kinds[algo->kind];
    if (c != out || algo->shape != shape_of(d, la, lb, lc) || bytes < kind.workspace || (bytes && !standin::holds((uintptr_t)workspace, bytes))) return blas_invalid_value;
    const void* at[] = {a, b, c};
    for (int i = 0; i < 3; i++)
        if ((uintptr_t)at[i] % algo->align[i]) return blas_not_supported;
    bool ta = d->transposed[0], tb = d->transposed[1];
    size_t k = ta ? la->rows : la->cols;
    if ((tb ? lb->cols : lb->rows) != k) return blas_invalid_value;
    return enqueue(stream, Product{lc->rows, lc->cols, k, *alpha, *beta, operand(a, la, ta), operand(b, lb, tb), operand(c, lc, false), kind.in_sequence}, kind.milliseconds);
}
