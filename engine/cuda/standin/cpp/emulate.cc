// The scheduler of fibers. A fiber runs until it waits or returns; then the next one that can run has its turn. So a kernel's result is a
// function of its arguments and of the chosen order, and a kernel whose result depends on the order has a race.
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <random>

#include "runtime.h"
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulate {

const size_t guard = 256;  // bytes after the dynamic shared memory, which nothing may write
alignas(1024) thread_local unsigned char dynamic_shared[shared_limit + guard];

namespace {

const int max_threads = 1024, warp = 32, post_bytes = 64, results = 4;
const size_t stack_bytes = 256 << 10;
const size_t stack_stride = stack_bytes + 5 * 64;  // tops of stacks a power of two apart would share a few lines of the cache

#if defined(__x86_64__)
struct Context { void* stack; };
extern "C" void emulate_switch(Context* from, Context* to);
__asm__(
    ".text\n.globl emulate_switch\n.hidden emulate_switch\n.type emulate_switch,@function\nemulate_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq (%rsi),%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
void prepare(Context& c, char* stack, void (*f)()) {
    void** top = (void**)(stack + stack_bytes) - 2;  // f is entered as if called: 8 bytes off a multiple of 16
    *top = (void*)f;
    c.stack = top - 6;  // six registers of any value
}
#else
struct Context { ucontext_t c; };
void emulate_switch(Context* from, Context* to) { swapcontext(&from->c, &to->c); }
void prepare(Context& c, char* stack, void (*f)()) {
    getcontext(&c.c);
    c.c.uc_stack.ss_sp = stack, c.c.uc_stack.ss_size = stack_bytes, c.c.uc_link = nullptr;
    makecontext(&c.c, f, 0);
}
#endif

enum State { ready, at_barrier, in_exchange, done };

struct Fiber {
    Context context;
    void* fake_stack;
    State state;
    dim3 index;
    Site site;      // where it waits
    unsigned mask;  // whom it waits for in an exchange
    size_t size;    // of what it brought
    const void* result;
    alignas(16) char post[post_bytes];
};

struct Warp {
    alignas(16) char results[emulate::results][warp * post_bytes];
    int next;
    unsigned waiting;  // lanes in an exchange
};

Fiber fibers[max_threads];
Warp warps[max_threads / warp];
Context scheduler;
#if defined(__SANITIZE_ADDRESS__)
void* scheduler_fake_stack;
const void* scheduler_stack;
size_t scheduler_stack_size;
#endif
char* stacks;
int threads, current, waiting, first_waiting, said_yes, answer;
const Kernel* kernel;
void** arguments;
std::string failure;
std::mt19937 random_order;
unsigned seed;

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

void to_scheduler(bool for_good = false) {
    Fiber& f = fibers[current];
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &f.fake_stack, scheduler_stack, scheduler_stack_size);
#endif
    (void)for_good;
    emulate_switch(&f.context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(f.fake_stack, nullptr, nullptr);
#endif
}

void resume(int i) {
    current = i;
    threadIdx = fibers[i].index;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, stacks + i * stack_stride, stack_bytes);
#endif
    emulate_switch(&scheduler, &fibers[i].context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void body() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
    kernel->run(arguments);
    fibers[current].state = done;
    to_scheduler(true);
}

std::string where(int thread) {
    const Fiber& f = fibers[thread];
    std::string who = "thread " + std::to_string(thread);
    if (f.state == done) return who + " has returned";
    if (!f.site.file) return who + " has not waited yet";
    return who + " is at " + f.site.file + ":" + std::to_string(f.site.line) + (f.state == at_barrier ? " (barrier)" : " (warp)");
}

// fail ends the kernel; a fiber that calls it never runs again.
void fail(const std::string& what) {
    if (failure.empty()) failure = what;
}

// stuck tells of one thread that waits and, if there is one, of another that it waits for and that is elsewhere.
void stuck() {
    int first = 0;
    while (fibers[first].state == done) first++;
    const Fiber& f = fibers[first];
    for (int i = 0; i < threads; i++) {
        bool awaited = f.state == at_barrier || (i / warp == first / warp && f.mask >> i % warp & 1);
        if (awaited && (fibers[i].state != f.state || fibers[i].site.line != f.site.line)) return fail("divergence: " + where(first) + ", " + where(i));
    }
    fail("divergence: " + where(first) + ", for lanes that are not there or have other masks");
}

void poison_shared(size_t dynamic);

std::vector<int> turns(int n) {
    std::vector<int> v(n);
    for (int i = 0; i < n; i++) v[i] = seed == 1 ? n - 1 - i : i;
    if (seed > 1) std::shuffle(v.begin(), v.end(), random_order);
    return v;
}

dim3 place(unsigned i, dim3 of) { return {i % of.x, i / of.x % of.y, i / of.x / of.y}; }

void start_block(size_t shared) {
    poison_shared(shared);
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stacks, max_threads * stack_stride);  // a failed kernel leaves its frames behind
#endif
    waiting = said_yes = 0;
    for (Warp& w : warps) w.waiting = 0;
    for (int i = 0; i < threads; i++) {
        Fiber& f = fibers[i];
        f.state = ready, f.index = place(i, blockDim), f.site = {nullptr, 0}, f.fake_stack = nullptr;
        prepare(f.context, stacks + i * stack_stride, body);
    }
}

// turn resumes each of some fibers once that can run, and says whether any could.
bool turn(int from, int to) {
    bool progress = false;
    for (int i : turns(to - from)) {
        if (fibers[from + i].state != ready) continue;
        resume(from + i);
        if (!failure.empty()) return false;
        progress = true;
    }
    return progress;
}

void run_block(size_t shared) {
    start_block(shared);
    for (bool progress = true; progress && failure.empty();) {
        progress = false;
        if (seed % 2 == 0)
            progress = turn(0, threads);
        else
            for (int w : turns((threads + warp - 1) / warp))
                while (failure.empty() && turn(w * warp, std::min(threads, (w + 1) * warp))) progress = true;
    }
    if (!failure.empty()) return;
    for (int i = 0; i < threads; i++)
        if (fibers[i].state != done) return stuck();
    for (size_t i = 0; i < guard; i++)
        if (dynamic_shared[shared + i] != 0xa5) return fail("wrote beyond its dynamic shared memory");
}

// own_shared finds the thread-local memory of this library: its shared memory.
int own_shared(dl_phdr_info* info, size_t, void* to) {
    for (int i = 0; i < info->dlpi_phnum; i++) {
        auto& h = info->dlpi_phdr[i];
        auto* begin = (unsigned char*)info->dlpi_tls_data;
        if (h.p_type == PT_TLS && begin && dynamic_shared >= begin && dynamic_shared < begin + h.p_memsz) {
            *(std::pair<unsigned char*, unsigned char*>*)to = {begin, begin + h.p_memsz};
            return 1;
        }
    }
    return 0;
}

// poison_shared fills static and dynamic shared memory with bytes that are NaN in every type of float.
void poison_shared(size_t dynamic) {
    std::pair<unsigned char*, unsigned char*> all;
    if (!dl_iterate_phdr(own_shared, &all)) return fail("the emulator does not find its shared memory");
    memset(all.first, 0xff, dynamic_shared - all.first);
    memset(dynamic_shared, 0xff, dynamic);
    memset(dynamic_shared + dynamic, 0xa5, guard);
    memset(dynamic_shared + sizeof dynamic_shared, 0xff, all.second - dynamic_shared - sizeof dynamic_shared);
}

void release(Warp& w, int first, unsigned mask) {
    char* result = w.results[w.next++ % results];
    w.waiting &= ~mask;
    for (unsigned left = mask; left; left &= left - 1) {
        Fiber& f = fibers[first + __builtin_ctz(left)];
        memcpy(result + __builtin_ctz(left) * f.size, f.post, f.size);
        f.result = result, f.state = ready;
    }
}

// agree says whether lanes that wait do so for each other.
bool agree(int first, unsigned mask) {
    const Fiber& mine = fibers[current];
    for (unsigned left = mask; left; left &= left - 1) {
        int i = first + __builtin_ctz(left);
        if (fibers[i].mask != mask) return false;
        if (fibers[i].site.line != mine.site.line || fibers[i].size != mine.size) return fail("divergence: " + where(current) + ", " + where(i)), false;
    }
    return true;
}

}  // namespace

int add(Kernel k) {
    kernels()[k.name] = k;
    return 0;
}

const Kernel* find(const std::string& name) {
    auto k = kernels().find(name);
    return k == kernels().end() ? nullptr : &k->second;
}

void order(unsigned s) {
    seed = s;
    random_order.seed(s);
}

int barrier(Site site, bool yes) {
    Fiber& f = fibers[current];
    f.site = site, f.state = at_barrier;
    said_yes += yes;
    if (waiting == 0) first_waiting = current;
    if (fibers[first_waiting].site.line != site.line) fail("divergence: " + where(current) + ", " + where(first_waiting)), to_scheduler(true);
    if (++waiting == threads) {
        answer = said_yes, waiting = said_yes = 0;
        for (int i = 0; i < threads; i++) fibers[i].state = ready;
    } else {
        to_scheduler();
    }
    return answer;
}

const void* exchange(Site site, unsigned mask, const void* mine, size_t size) {
    Fiber& f = fibers[current];
    f.site = site, f.mask = mask, f.size = size, f.state = in_exchange;
    int first = current & ~(warp - 1);
    if (!(mask >> (current - first) & 1) || size > post_bytes) fail(where(current) + ": its mask does not name it"), to_scheduler(true);
    memcpy(f.post, mine, size);
    Warp& w = warps[first / warp];
    w.waiting |= 1u << (current - first);
    if ((w.waiting & mask) == mask && agree(first, mask))
        release(w, first, mask);
    else
        to_scheduler(!failure.empty());
    return f.result;
}

std::string run(const Kernel& k, const Grid& g, void** args) {
    if (!stacks) stacks = (char*)mmap(nullptr, max_threads * stack_stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    kernel = &k, arguments = args, failure.clear();
    blockDim = g.threads, gridDim = g.blocks;
    threads = g.threads.x * g.threads.y * g.threads.z;
    for (int b : turns(g.blocks.x * g.blocks.y * g.blocks.z)) {
        blockIdx = place(b, g.blocks);
        run_block(g.shared);
        if (!failure.empty()) return std::string(k.name) + ", block " + std::to_string(b) + ": " + failure;
    }
    return "";
}

}  // namespace emulate
