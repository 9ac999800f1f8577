// Tensor cores, matrix fragments and asynchronous copies: the few PTX instructions that the flash attention kernels use, each with its exact
// meaning on the processor beside it (EMULATE), so that a test without a GPU checks which lane holds which element.
//
// A warp's fragments (PTX ISA, "Matrix Fragments for mma.m16n8k16"), g = lane/4, t = lane%4; every register holds two bf16 of neighbouring columns:
//   A 16x16   a[0] = A[g][2t..]   a[1] = A[g+8][2t..]   a[2] = A[g][2t+8..]   a[3] = A[g+8][2t+8..]
//   B 16x8    b0   = B[2t..][g]   b1   = B[2t+8..][g]
//   C 16x8    c[0..1] = C[g][2t..]   c[2..3] = C[g+8][2t..]
// So C of two neighbouring column tiles, rounded to bf16, is A of the next product: no trip through shared memory.
//
// A tile lies in shared memory as rows of 8 or 16 pieces of 16 bytes, of which heads of 96 use 12; piece p of row r lies at place p ^ (r & 7). Eight rows of one column of
// pieces, which ldmatrix reads at once, then lie in eight different groups of four banks, and so do the eight neighbouring pieces that cp.async writes.

#ifndef EMULATE

typedef unsigned Shared;  // address in the shared window

static __device__ __forceinline__ Shared dynamic_shared() {
    extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];
    Shared address;
    asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }" : "=r"(address) : "l"(dynamic_shared_bytes));
    return address;
}

// copy_async starts a copy of BYTES (4 or 16) to shared memory; if not `valid`, zeros are written and nothing is read.
template <int BYTES> static __device__ __forceinline__ void copy_async(Shared to, const void* from, bool valid) {
    int bytes = valid ? BYTES : 0;
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

// copy_wait waits for all copies this thread has started; a barrier must follow before other threads' pieces are read.
static __device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// load_matrices loads four 8x8 matrices, one from each eight lanes' addresses of rows, into the four registers (ldmatrix).
static __device__ __forceinline__ void load_matrices(unsigned (&r)[4], Shared row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row));
}

static __device__ __forceinline__ void load_matrices_transposed(unsigned (&r)[4], Shared row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row));
}

// multiply_add is c += a * b over a 16x16 a and a 16x8 b of bf16, in f32.
static __device__ __forceinline__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    float d[4];
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
    c[0] = d[0], c[1] = d[1], c[2] = d[2], c[3] = d[3];
}

// power_of_two is 2^x to about two units in the last place; 2^-inf = 0.
static __device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ void store_pair(Shared to, unsigned pair) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(pair) : "memory"); }

static __device__ __forceinline__ void load_two_floats(float (&v)[2], Shared from) {
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(v[0]), "=f"(v[1]) : "r"(from));
}

// copy_out copies 16 bytes from shared to device memory.
static __device__ __forceinline__ void copy_out(void* to, Shared from) {
    asm volatile("{ .reg .b32 a, b, c, d; ld.shared.v4.b32 {a,b,c,d}, [%1]; st.global.v4.b32 [%0], {a,b,c,d}; }" ::"l"(to), "r"(from) : "memory");
}

#else  // the same on the processor

typedef unsigned char* Shared;

static Shared dynamic_shared() { return EMULATED_DYNAMIC_SHARED; }

struct PendingCopy {
    Shared to;
    const unsigned char* from;
    int bytes, valid;
};
struct PendingCopies {
    int count;
    PendingCopy copy[128];
};
static PendingCopies pending_copies[1024];  // of each thread

// The bytes arrive at copy_wait, and until then the place holds NaN: a missing wait is seen.
template <int BYTES> static void copy_async(Shared to, const void* from, bool valid) {
    PendingCopies& mine = pending_copies[threadIdx.x];
    if (mine.count == 128) __builtin_trap();
    memset(to, 0xff, BYTES);
    mine.copy[mine.count++] = PendingCopy{to, (const unsigned char*)from, BYTES, valid};
}

static void copy_wait() {
    PendingCopies& mine = pending_copies[threadIdx.x];
    for (int i = 0; i < mine.count; i++) {
        PendingCopy c = mine.copy[i];
        c.valid ? memcpy(c.to, c.from, c.bytes) : memset(c.to, 0, c.bytes);
    }
    mine.count = 0;
}

static unsigned half_at(Shared row, int i) { return row[2 * i] | row[2 * i + 1] << 8; }

// show_rows is the rows' addresses of all lanes. Each eight must lie in eight different groups of four banks.
static const Shared* show_rows(Shared row) {
    const Shared* rows = emulate::gather(EMULATE_SITE, ALL_LANES, row);
    for (int m = 0; m < 4; m++) {
        unsigned groups = 0;
        for (int i = 0; i < 8; i++) groups |= 1u << ((size_t)rows[8 * m + i] / 16 % 8);
        if (groups != 0xff) __builtin_trap();  // a bank conflict
    }
    return rows;
}

static void load_matrices(unsigned (&r)[4], Shared row) {
    const Shared* rows = show_rows(row);
    int g = emulate::lane() / 4, t = emulate::lane() % 4;
    for (int m = 0; m < 4; m++) r[m] = half_at(rows[8 * m + g], 2 * t) | half_at(rows[8 * m + g], 2 * t + 1) << 16;
}

static void load_matrices_transposed(unsigned (&r)[4], Shared row) {
    const Shared* rows = show_rows(row);
    int g = emulate::lane() / 4, t = emulate::lane() % 4;
    for (int m = 0; m < 4; m++) r[m] = half_at(rows[8 * m + 2 * t], g) | half_at(rows[8 * m + 2 * t + 1], g) << 16;
}

struct Operands {
    unsigned a[4], b[2];
};

static float half_of(unsigned pair, int high) { return __uint_as_float(high ? pair & 0xffff0000u : pair << 16); }

static void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const Operands* warp = emulate::gather(EMULATE_SITE, ALL_LANES, Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    int g = emulate::lane() / 4, t = emulate::lane() % 4;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 16; k++) {
            const Operands& left = warp[4 * g + k % 8 / 2];                 // row g or g+8 of A
            const Operands& right = warp[4 * (2 * t + i % 2) + k % 8 / 2];  // column 2t or 2t+1 of B
            c[i] += half_of(left.a[i / 2 + 2 * (k / 8)], k % 2) * half_of(right.b[k / 8], k % 2);
        }
}

static float power_of_two(float x) { return exp2f(x); }
static void store_pair(Shared to, unsigned pair) { memcpy(to, &pair, 4); }
static void load_two_floats(float (&v)[2], Shared from) { memcpy(v, from, 8); }
static void copy_out(void* to, Shared from) { memcpy(to, from, 16); }

#endif

template <int D> constexpr int ROW_PIECES = D <= 64 ? 8 : 16;
template <int D> constexpr int ROW_BYTES = 16 * ROW_PIECES<D>;

// A lane's share of loading a 16x16 piece of a tile with rows of D elements: the address of a row of eight elements, `r` rows and `half` half-rows from the
// piece's beginning.
template <int D> static __device__ __forceinline__ Shared piece_row(Shared tile, int row, int column, int r, int half) {
    return tile + (row + r) * ROW_BYTES<D> + (((column / 8 + half) ^ (r & 7)) << 4);
}

// load_left loads A.
template <int D> static __device__ __forceinline__ void load_left(unsigned (&a)[4], Shared tile, int row, int column) {
    int lane = threadIdx.x % WARP;
    load_matrices(a, piece_row<D>(tile, row, column, lane % 16, lane / 16));
}

// load_right loads a piece as B: (b[0], b[1]) for its columns 0-7, (b[2], b[3]) for columns 8-15. The tensor cores want the two in neighbouring
// registers, so the order of the four matrices matters.
template <int D> static __device__ __forceinline__ void load_right(unsigned (&b)[4], Shared tile, int row, int column) {
    int lane = threadIdx.x % WARP;
    load_matrices_transposed(b, piece_row<D>(tile, row, column, lane % 16, lane / 16));
}

// load_right_transposed loads the transpose of a piece as B: its columns are the piece's rows.
template <int D> static __device__ __forceinline__ void load_right_transposed(unsigned (&b)[4], Shared tile, int row, int column) {
    int lane = threadIdx.x % WARP;
    load_matrices(b, piece_row<D>(tile, row, column, lane % 8 + lane / 16 * 8, lane / 8 % 2));
}

// as_left makes A of the next product from column tiles n and n+1 of C.
static __device__ __forceinline__ void as_left(unsigned (&a)[4], const float (&first)[4], const float (&second)[4]) {
    a[0] = pack_bf16(first[0], first[1]), a[1] = pack_bf16(first[2], first[3]);
    a[2] = pack_bf16(second[0], second[1]), a[3] = pack_bf16(second[2], second[3]);
}
