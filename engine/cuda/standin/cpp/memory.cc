// Memory of the stand-in: allocations between fences, copies that stay inside them, pinned memory.
#include <cstdlib>

#include "driver.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)
#define ASAN_UNPOISON_MEMORY_REGION(p, n)
#endif

namespace standin {
namespace {

const size_t fence = 256;  // bytes before and after each allocation
const unsigned char fence_byte = 0xa5;

size_t rounded(size_t bytes) { return (bytes + 255) & ~size_t(255); }

void set_fences(uintptr_t p, size_t bytes) {
    auto* at = (unsigned char*)p;
    memset(at - fence, fence_byte, fence);
    memset(at + bytes, fence_byte, fence);
    ASAN_POISON_MEMORY_REGION(at - fence, fence);
    ASAN_POISON_MEMORY_REGION(at + bytes, fence);
}

bool fences_stand(uintptr_t p, size_t bytes) {
    auto* at = (unsigned char*)p;
    ASAN_UNPOISON_MEMORY_REGION(at - fence, bytes + 2 * fence);
    bool stand = true;
    for (size_t i = 0; i < fence; i++) stand = stand && at[-1 - (long)i] == fence_byte && at[bytes + i] == fence_byte;
    set_fences(p, bytes);
    return stand;
}

}  // namespace

static void give_back(uintptr_t p, size_t bytes) {
    device().taken -= rounded(bytes);
    ASAN_UNPOISON_MEMORY_REGION((char*)p - fence, bytes + 2 * fence);
    free((char*)p - fence);
}

void release_all() {
    for (auto& [p, bytes] : device().allocations) give_back(p, bytes);
    device().allocations.clear();
}

bool holds(uintptr_t p, size_t bytes) {
    auto& all = device().allocations;
    auto after = all.upper_bound(p);
    if (after == all.begin()) return bytes == 0;
    auto a = std::prev(after);
    return p - a->first + bytes <= a->second;
}

void check_fences() {
    for (auto& [p, bytes] : device().allocations)
        if (!fences_stand(p, bytes)) fail("something wrote outside an allocation of " + std::to_string(bytes) + " bytes");
}

// copy puts a copy on a stream; the kinds of memory are checked now, as the driver does.
static CUresult copy(uintptr_t to, bool to_device, uintptr_t from, bool from_device, size_t n, CUstream_st* s) {
    if (to_device && !holds(to, n)) return invalid_value;
    if (from_device && !holds(from, n)) return invalid_value;
    return enqueue(s, [=] { memmove((void*)to, (void*)from, n); });
}

template <class T> static CUresult set(CUdeviceptr p, T value, size_t n, CUstream_st* s) {
    if (!holds(p, n * sizeof(T))) return invalid_value;
    return enqueue(s, [=] {
        for (size_t i = 0; i < n; i++) ((T*)p)[i] = value;
    });
}

}  // namespace standin

using namespace standin;

API cuMemAlloc_v2(CUdeviceptr* p, size_t bytes) {
    LOCKED;
    TRY(waits());
    if (bytes == 0) return invalid_value;
    if (device().taken + rounded(bytes) > device().memory) return out_of_memory;
    auto* at = (unsigned char*)aligned_alloc(256, rounded(bytes) + 2 * fence);
    if (!at) return out_of_memory;
    memset(at, 0xff, rounded(bytes) + 2 * fence);  // NaN
    *p = (CUdeviceptr)(at + fence);
    device().allocations[*p] = bytes, device().taken += rounded(bytes);
    set_fences(*p, bytes);
    return success;
}

API cuMemFree_v2(CUdeviceptr p) {
    LOCKED;
    if (p == 0) return success;
    CUresult state = drain_all();
    auto a = device().allocations.find(p);
    if (a == device().allocations.end()) return invalid_value;
    give_back(a->first, a->second);
    device().allocations.erase(a);
    return state;
}

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    LOCKED;
    TRY(ready());
    *total = device().memory, *free = *total - device().taken;
    return success;
}

API cuMemHostAlloc(void** p, size_t bytes, unsigned) {
    TRY(waits());
    return *p = aligned_alloc(4096, (bytes + 4095) & ~size_t(4095)), *p ? success : out_of_memory;
}
API cuMemAllocHost_v2(void** p, size_t bytes) { return cuMemHostAlloc(p, bytes, 0); }
API cuMemFreeHost(void* p) { return free(p), success; }

static std::map<uintptr_t, size_t>& registered() {
    static std::map<uintptr_t, size_t> r;
    return r;
}
API cuMemHostRegister_v2(void* p, size_t bytes, unsigned) {
    LOCKED;
    TRY(waits());
    if (!p || bytes == 0) return invalid_value;
    for (auto& [at, n] : registered())
        if ((uintptr_t)p < at + n && at < (uintptr_t)p + bytes) return already_registered;
    return registered()[(uintptr_t)p] = bytes, success;
}
API cuMemHostUnregister(void* p) {
    LOCKED;
    TRY(waits());
    return registered().erase((uintptr_t)p) ? success : not_registered;
}

API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t n, CUstream_st* s) {
    LOCKED;
    return copy(to, true, (uintptr_t)from, false, n, s);
}
API cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t n, CUstream_st* s) {
    LOCKED;
    return copy((uintptr_t)to, false, from, true, n, s);
}
API cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream_st* s) {
    LOCKED;
    return copy(to, true, from, true, n, s);
}
API cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t n) {
    LOCKED;
    TRY(waits());
    return cuMemcpyHtoDAsync_v2(to, from, n, nullptr);
}
API cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t n) {
    LOCKED;
    TRY(waits());
    return cuMemcpyDtoHAsync_v2(to, from, n, nullptr);
}
API cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t n) { return cuMemcpyDtoDAsync_v2(to, from, n, nullptr); }

// Unified addressing: each side is the device's if an allocation holds it.
API cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream_st* s) {
    LOCKED;
    return enqueue(s, [=] { memmove((void*)to, (void*)from, n); });
}
API cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t n) { return cuMemcpyAsync(to, from, n, nullptr); }

API cuMemsetD8Async(CUdeviceptr p, unsigned char v, size_t n, CUstream_st* s) {
    LOCKED;
    return set(p, v, n, s);
}
API cuMemsetD32Async(CUdeviceptr p, unsigned v, size_t n, CUstream_st* s) {
    LOCKED;
    return set(p, v, n, s);
}
API cuMemsetD8_v2(CUdeviceptr p, unsigned char v, size_t n) { return cuMemsetD8Async(p, v, n, nullptr); }
API cuMemsetD32_v2(CUdeviceptr p, unsigned v, size_t n) { return cuMemsetD32Async(p, v, n, nullptr); }
