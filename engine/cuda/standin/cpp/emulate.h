// The CUDA language on the processor, as far as engine/cuda/kernels uses it: every .cu file is compiled as C++ after this header, inside a
// namespace of its own, and KERNEL(name) makes each of its kernels known to the stand-in driver.
//
// A CUDA thread is a fiber; the fibers of a block take turns on one processor's thread (emulate.cc). What a thread waits for - a barrier, a
// warp's exchange - is a rendezvous that checks who comes: a thread that leaves early, another barrier's line, a lane that its mask does not
// name end the kernel with an error that says which thread stands where.
//
// __shared__ is thread_local, because that makes a block-scope variable static without saying so and collects all of them in one place of the
// library, which is filled with NaN before each block. So a kernel's emulation-only state must be plain static, not thread_local. Dynamic shared memory is
// EMULATED_DYNAMIC_SHARED.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define EMULATE 1
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ thread_local
#define EMULATED_DYNAMIC_SHARED emulate::dynamic_shared

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct dim3 { unsigned x, y, z; };
extern dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the fiber that runs
static const int warpSize = 32;

namespace emulate {

extern thread_local unsigned char dynamic_shared[];

// A Site is where a thread waits; equal sites are one line of the source.
struct Site {
    const char* file;
    int line;
};

// barrier waits for all threads of the block at the same site and returns how many of them say yes.
int barrier(Site, bool yes);

// exchange waits until every lane of the mask has come with the same mask and site, and returns what they brought, 32 values of `size` bytes each,
// of which only those of the mask mean anything. It is good until the lane's next exchange.
const void* exchange(Site, unsigned mask, const void* mine, size_t size);

template <class T> const T* gather(Site site, unsigned mask, T mine) { return (const T*)exchange(site, mask, &mine, sizeof mine); }

inline int lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }

template <class T> T shuffle(Site site, unsigned mask, T mine, int from) {
    const T* all = gather(site, mask, mine);
    return from < 0 || from > 31 ? mine : all[from];
}

inline unsigned ballot(Site site, unsigned mask, bool yes) {
    const unsigned* all = gather<unsigned>(site, mask, yes);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) bits |= all[i] << i;
    return bits;
}

// A Kernel can be launched with pointers to its arguments, whose sizes it knows.
struct Kernel {
    const char* name;
    std::vector<size_t> sizes;
    std::function<void(void**)> run;
};

int add(Kernel);

template <class... A, size_t... I> void call(void (*f)(A...), void** args, std::index_sequence<I...>) { f(*(A*)args[I]...); }

template <class... A> int add(const char* name, void (*f)(A...)) {
    return add(Kernel{name, {sizeof(A)...}, [f](void** args) { call(f, args, std::index_sequence_for<A...>{}); }});
}

}  // namespace emulate

#define KERNEL(name) static int added_##name = emulate::add(#name, name);

#define __expf expf  // the names are taken in this C library
#define __logf logf

#define EMULATE_SITE (emulate::Site{__FILE__, __LINE__})
#define __syncthreads() ((void)emulate::barrier(EMULATE_SITE, false))
#define __syncthreads_count(yes) emulate::barrier(EMULATE_SITE, yes)
#define __syncthreads_or(yes) (emulate::barrier(EMULATE_SITE, yes) > 0)
#define EMULATE_FIRST(mask, ...) (mask)
#define __syncwarp(...) ((void)emulate::gather(EMULATE_SITE, EMULATE_FIRST(__VA_ARGS__ __VA_OPT__(, ) 0xffffffffu), 0))
#define __shfl_sync(mask, v, from) emulate::shuffle(EMULATE_SITE, mask, v, (from) & 31)
#define __shfl_xor_sync(mask, v, bits) emulate::shuffle(EMULATE_SITE, mask, v, emulate::lane() ^ (bits))
#define __shfl_down_sync(mask, v, by) emulate::shuffle(EMULATE_SITE, mask, v, emulate::lane() + (by))
#define __shfl_up_sync(mask, v, by) emulate::shuffle(EMULATE_SITE, mask, v, emulate::lane() - (by))
#define __ballot_sync(mask, yes) emulate::ballot(EMULATE_SITE, mask, yes)
#define __any_sync(mask, yes) (emulate::ballot(EMULATE_SITE, mask, yes) != 0)
#define __all_sync(mask, yes) (emulate::ballot(EMULATE_SITE, mask, yes) == (mask))

template <class To, class From> static inline To emulate_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "of one size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline float __uint_as_float(unsigned u) { return emulate_bits<float>(u); }
static inline float __int_as_float(int i) { return emulate_bits<float>(i); }
static inline unsigned __float_as_uint(float f) { return emulate_bits<unsigned>(f); }
static inline int __float_as_int(float f) { return emulate_bits<int>(f); }
static inline double __longlong_as_double(long long i) { return emulate_bits<double>(i); }
static inline long long __double_as_longlong(double d) { return emulate_bits<long long>(d); }

// Rounded once each: compiled with -ffp-contract=off.
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline long long __double2ll_rn(double a) { return llrint(a); }
static inline float rsqrtf(float a) { return 1 / sqrtf(a); }
static inline float __fdividef(float a, float b) { return a / b; }

static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __clz(int a) { return a ? __builtin_clz(a) : 32; }
static inline int __ffs(int a) { return __builtin_ffs(a); }
template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }

// Fibers take turns, so nothing has to be atomic. Only for integers: sums of floats would depend on the order.
template <class T> static inline T atomicAdd(T* p, T v) { T old = *p; *p = old + v; return old; }
template <class T> static inline T atomicOr(T* p, T v) { T old = *p; *p = old | v; return old; }
template <class T> static inline T atomicMax(T* p, T v) { T old = *p; *p = max(old, v); return old; }
