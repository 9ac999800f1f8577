// The state of the stand-in driver, and what its parts and cuBLAS know of each other.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "runtime.h"

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef std::function<void()> Work;

enum : CUresult {
    success = 0, invalid_value = 1, out_of_memory = 2, not_initialized = 3, invalid_device = 101, invalid_image = 200, invalid_context = 201, invalid_ptx = 218, already_registered = 712, not_registered = 713,
    invalid_handle = 400, not_found = 500, not_ready = 600, launch_failed = 719, capture_unsupported = 900, capture_invalidated = 901,
};

struct CUstream_st;

struct CUevent_st {
    CUstream_st* stream = nullptr;  // on which it was recorded last
    unsigned long recorded = 0, reached = 0;
    double at = 0;  // of the stand-in's clock, when it was reached
};

// An Op is work, or the mark of an event, or the wait for one.
struct Op {
    Work run;
    CUevent_st* record;
    CUevent_st* wait;
    unsigned long version;  // of the event
};

struct CUgraph_st {
    std::vector<Work> nodes;
};

struct CUstream_st {
    bool blocking = true, broken = false;
    std::deque<Op> queue;
    CUgraph_st* recording = nullptr;
};

struct CUctx_st {};

namespace standin {

// Device is all state. The driver's API may be called from any thread; one lock is enough for a stand-in.
struct Device {
    std::recursive_mutex lock;
    bool initialized = false;
    int retained = 0;
    CUctx_st context;
    std::map<uintptr_t, size_t> allocations;  // address to bytes
    size_t memory = size_t(4) << 30, taken = 0;
    CUstream_st legacy;  // stream 0
    std::set<CUstream_st*> streams;
    CUstream_st* capturing = nullptr;
    CUresult sticky = success;  // after a kernel failed, as on a GPU, nothing works any more
    std::string message;
    double clock = 0;  // milliseconds: only products through cuBLASLt take any
};

Device& device();

// ready says why nothing can be done now: no context, or a kernel has failed.
CUresult ready();

// enqueue puts work on a stream, or into the graph that the stream is recording.
CUresult enqueue(CUstream_st*, Work);

// drain runs what waits on a stream (or on all) and returns the device's state.
CUresult drain(CUstream_st*);
CUresult drain_all();

// waits is for calls that wait or allocate: they end a recording.
CUresult waits();

// fail is what a kernel that goes wrong leaves behind.
void fail(const std::string& message);

// holds says whether bytes at p are inside one allocation.
bool holds(uintptr_t p, size_t bytes);

// release_all frees what was not: a context takes its memory with it.
void release_all();

// check_fences fails if somebody wrote outside an allocation.
void check_fences();

}  // namespace standin

#define API extern "C" __attribute__((visibility("default"))) CUresult
#define LOCKED std::lock_guard<std::recursive_mutex> locked(standin::device().lock)
#define TRY(call) \
    if (CUresult r = (call)) return r
