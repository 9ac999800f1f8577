// Stand-in libcuda.so.1: as much of the driver's API as a program needs that allocates, copies, launches, records and waits. Kernels run on the
// emulator; a module gives those that both its PTX and the emulator have, if their parameters are the same.
//
// Nothing runs before somebody waits for it. A real GPU may be that late too, so a program that reads too early, or overwrites what a copy has still
// to read, is seen here every time. Nothing crosses the ends of an allocation unseen: copies are checked, and so are bytes around each allocation.
// Memory that was never written is NaN.
#include "driver.h"

#include <pthread.h>

#include <cstdio>
#include <cstdlib>

namespace standin {

Device& device() {
    static Device d;
    return d;
}

namespace {

pthread_key_t current_key() {  // not thread_local: that is the emulator's shared memory
    static pthread_key_t key = [] {
        pthread_key_t k;
        pthread_key_create(&k, nullptr);
        return k;
    }();
    return key;
}

CUctx_st* current() { return (CUctx_st*)pthread_getspecific(current_key()); }

void run_until(CUstream_st* s, CUevent_st* event, unsigned long version) {
    while (!s->queue.empty() && !(event && event->reached >= version)) {
        Op op = std::move(s->queue.front());
        s->queue.pop_front();
        if (op.wait && op.wait->reached < op.version) run_until(op.wait->stream, op.wait, op.version);
        if (op.record) op.record->reached = op.version, op.record->at = device().clock;
        if (op.run && device().sticky == success) op.run();
    }
}

}  // namespace

CUresult ready() {
    if (!device().initialized) return not_initialized;
    if (!current() || device().retained == 0) return invalid_context;
    return device().sticky;
}

CUresult enqueue(CUstream_st* s, Work w) {
    TRY(ready());
    if (!s) s = &device().legacy;
    if (s->broken) return capture_invalidated;
    if (s->recording) return s->recording->nodes.push_back(std::move(w)), success;
    if (s == &device().legacy) {  // waits for all blocking streams, which wait for it
        for (auto* other : device().streams)
            if (other->blocking) run_until(other, nullptr, 0);
        run_until(s, nullptr, 0);
        w();
        return device().sticky;
    }
    s->queue.push_back(Op{std::move(w), nullptr, nullptr, 0});
    return success;
}

CUresult drain(CUstream_st* s) {
    TRY(waits());
    if (s) run_until(s, nullptr, 0);
    check_fences();
    return device().sticky;
}

CUresult drain_all() {
    TRY(waits());
    for (auto* s : device().streams) run_until(s, nullptr, 0);
    check_fences();
    return device().sticky;
}

CUresult waits() {
    TRY(ready());
    if (!device().capturing) return success;
    device().capturing->broken = true;
    return capture_unsupported;
}

void fail(const std::string& message) {
    fprintf(stderr, "stand-in GPU: %s\n", message.c_str());
    device().sticky = launch_failed;
    device().message = message;
}

}  // namespace standin

using namespace standin;

// What tests say to the stand-in.
extern "C" __attribute__((visibility("default"))) void standin_order(unsigned seed) { emulate::order(seed); }
extern "C" __attribute__((visibility("default"))) void standin_memory(size_t bytes) { device().memory = bytes; }
extern "C" __attribute__((visibility("default"))) unsigned standin_clock() { return device().clock * 1000; }  // microseconds

API cuInit(unsigned) { return device().initialized = true, success; }
API cuDriverGetVersion(int* v) { return *v = 12020, success; }
API cuGetErrorString(CUresult r, const char** text) {
    static char number[32];
    snprintf(number, sizeof number, "stand-in error %d", r);
    *text = r == launch_failed ? device().message.c_str() : r == out_of_memory ? "out of memory" : number;
    return success;
}
API cuGetErrorName(CUresult r, const char** text) { return cuGetErrorString(r, text); }

// Devices and contexts.

API cuDeviceGetCount(int* n) { return *n = 1, device().initialized ? success : not_initialized; }
API cuDeviceGet(CUdevice* d, int ordinal) { return *d = 0, ordinal == 0 ? success : invalid_device; }
API cuDeviceGetName(char* name, int n, CUdevice) { return snprintf(name, n, "stand-in GPU"), success; }
API cuDeviceTotalMem_v2(size_t* bytes, CUdevice) { return *bytes = device().memory, success; }
API cuDeviceGetUuid(char* uuid, CUdevice) { return memcpy(uuid, "lorad stand-in 0", 16), success; }
API cuDeviceGetUuid_v2(char* uuid, CUdevice d) { return cuDeviceGetUuid(uuid, d); }

API cuDeviceGetAttribute(int* value, int attribute, CUdevice) {
    static const std::map<int, int> known{
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535}, {8, 48 << 10}, {10, 32}, {12, 65536}, {13, 1410000}, {16, 4}, {31, 1},
        {36, 1215000}, {37, 5120}, {38, 40 << 20}, {39, 2048}, {41, 1}, {75, 8}, {76, 0}, {81, 164 << 10}, {97, int(emulate::shared_limit)}, {115, 1},
    };
    auto found = known.find(attribute);
    *value = found == known.end() ? 0 : found->second;
    return success;
}

API cuDevicePrimaryCtxRetain(CUctx_st** c, CUdevice) {
    LOCKED;
    if (!device().initialized) return not_initialized;
    device().retained++;
    return *c = &device().context, success;
}

API cuDevicePrimaryCtxRelease_v2(CUdevice) {
    LOCKED;
    if (device().retained == 0) return invalid_context;
    if (--device().retained == 0) release_all(), device().sticky = success;
    return success;
}
API cuDevicePrimaryCtxRelease(CUdevice d) { return cuDevicePrimaryCtxRelease_v2(d); }
API cuDevicePrimaryCtxSetFlags_v2(CUdevice, unsigned) { return success; }
API cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) { return *flags = 0, *active = device().retained > 0, success; }

API cuCtxSetCurrent(CUctx_st* c) { return pthread_setspecific(current_key(), c), success; }
API cuCtxGetCurrent(CUctx_st** c) { return *c = current(), success; }
API cuCtxPushCurrent_v2(CUctx_st* c) { return cuCtxSetCurrent(c); }
API cuCtxPopCurrent_v2(CUctx_st** c) { return *c = current(), cuCtxSetCurrent(nullptr); }
API cuCtxGetDevice(CUdevice* d) { return *d = 0, current() ? success : invalid_context; }
API cuCtxGetApiVersion(CUctx_st*, unsigned* v) { return *v = 3020, success; }
API cuCtxGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, success; }
API cuCtxSynchronize() {
    LOCKED;
    return drain_all();
}

// Streams and events.

API cuStreamCreate(CUstream_st** s, unsigned flags) {
    LOCKED;
    TRY(ready());
    *s = new CUstream_st;
    (*s)->blocking = !(flags & 1);
    device().streams.insert(*s);
    return success;
}
API cuStreamCreateWithPriority(CUstream_st** s, unsigned flags, int) { return cuStreamCreate(s, flags); }

API cuStreamDestroy_v2(CUstream_st* s) {
    LOCKED;
    run_until(s, nullptr, 0);
    device().streams.erase(s);
    delete s;
    return success;
}

API cuStreamSynchronize(CUstream_st* s) {
    LOCKED;
    return s ? drain(s) : drain_all();
}
API cuStreamQuery(CUstream_st* s) {
    LOCKED;
    return s && !s->queue.empty() ? not_ready : device().sticky;
}

API cuEventCreate(CUevent_st** e, unsigned) { return *e = new CUevent_st, success; }
API cuEventDestroy_v2(CUevent_st* e) { return delete e, success; }

API cuEventRecord(CUevent_st* e, CUstream_st* s) {
    LOCKED;
    TRY(ready());
    if (s && s->recording) return s->broken = true, capture_unsupported;
    e->stream = s ? s : &device().legacy;
    e->stream->queue.push_back(Op{nullptr, e, nullptr, ++e->recorded});
    return success;
}

API cuStreamWaitEvent(CUstream_st* s, CUevent_st* e, unsigned) {
    LOCKED;
    TRY(ready());
    if (s && s->recording) return s->broken = true, capture_unsupported;
    if (e->recorded) (s ? s : &device().legacy)->queue.push_back(Op{nullptr, nullptr, e, e->recorded});
    return success;
}

API cuEventSynchronize(CUevent_st* e) {
    LOCKED;
    TRY(waits());
    if (e->recorded) run_until(e->stream, e, e->recorded);
    return device().sticky;
}
API cuEventQuery(CUevent_st* e) { return e->reached < e->recorded ? not_ready : success; }
API cuEventElapsedTime(float* ms, CUevent_st* a, CUevent_st* b) { return *ms = b->at - a->at, success; }

// Recording.

API cuStreamBeginCapture_v2(CUstream_st* s, int) {
    LOCKED;
    TRY(ready());
    if (!s || s->recording) return capture_unsupported;
    s->recording = new CUgraph_st;
    device().capturing = s;
    return success;
}

API cuStreamEndCapture(CUstream_st* s, CUgraph_st** g) {
    LOCKED;
    if (!s || !s->recording) return invalid_value;
    *g = s->recording;
    bool broken = s->broken;
    s->recording = nullptr, s->broken = false, device().capturing = nullptr;
    if (broken) delete *g, *g = nullptr;
    return broken ? capture_invalidated : success;
}

API cuStreamIsCapturing(CUstream_st* s, int* status) { return *status = !s || !s->recording ? 0 : s->broken ? 2 : 1, success; }
API cuGraphInstantiateWithFlags(CUgraph_st** exec, CUgraph_st* g, unsigned long long) { return *exec = new CUgraph_st(*g), success; }
API cuGraphInstantiate_v2(CUgraph_st** exec, CUgraph_st* g, void**, char*, size_t) { return cuGraphInstantiateWithFlags(exec, g, 0); }
API cuGraphGetNodes(CUgraph_st* g, void**, size_t* n) { return *n = g->nodes.size(), success; }
API cuGraphDestroy(CUgraph_st* g) { return delete g, success; }
API cuGraphExecDestroy(CUgraph_st* g) { return delete g, success; }

API cuGraphLaunch(CUgraph_st* g, CUstream_st* s) {
    LOCKED;
    for (auto& node : g->nodes) TRY(enqueue(s, node));
    return success;
}
