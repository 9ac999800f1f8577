// Modules and launches of the stand-in.
#include <cstdlib>
#include <memory>

#include "driver.h"

// A function is a kernel of the emulator with what the driver remembers of it.
struct CUfunc_st {
    const emulate::Kernel* kernel;
    size_t shared_limit = 48 << 10;
};

struct CUmod_st {
    std::map<std::string, std::vector<size_t>> parameters;  // of each kernel in the PTX: their sizes
    std::map<std::string, std::unique_ptr<CUfunc_st>> functions;
};

using namespace standin;

namespace {

// size_of reads "u64", "f32" and the like.
size_t size_of(const std::string& type) { return atoi(type.c_str() + 1) / 8; }

// parameters reads ".param .u64 name," up to the end of a kernel's list.
std::vector<size_t> parameters(const std::string& list) {
    std::vector<size_t> sizes;
    const std::string word = ".param .";
    for (size_t at = list.find(word); at != std::string::npos; at = list.find(word, at + 1)) {
        size_t type = at + word.size();
        sizes.push_back(size_of(list.substr(type, list.find(' ', type) - type)));
    }
    return sizes;
}

// read finds ".entry name(" and the parameters of each kernel.
void read(CUmod_st& m, const std::string& ptx) {
    const std::string word = ".entry ";
    for (size_t at = ptx.find(word); at != std::string::npos; at = ptx.find(word, at + 1)) {
        size_t name = at + word.size(), open = ptx.find('(', name), close = ptx.find(')', open);
        if (close == std::string::npos) return;
        m.parameters[ptx.substr(name, open - name)] = parameters(ptx.substr(open, close - open));
    }
}

bool launchable(const CUfunc_st* f, const emulate::Grid& g) {
    size_t threads = size_t(g.threads.x) * g.threads.y * g.threads.z;
    return threads > 0 && threads <= 1024 && g.blocks.x > 0 && g.blocks.y > 0 && g.blocks.z > 0 && g.blocks.x < 1u << 31 && g.blocks.y < 65536 &&
           g.blocks.z < 65536 && g.shared <= f->shared_limit;
}

// Arguments are copied when a kernel is launched or recorded.
Work launch(const emulate::Kernel* k, emulate::Grid g, void** params) {
    std::vector<std::vector<char>> values;
    for (size_t i = 0; i < k->sizes.size(); i++) values.emplace_back((char*)params[i], (char*)params[i] + k->sizes[i]);
    return [k, g, values]() mutable {
        std::vector<void*> pointers;
        for (auto& v : values) pointers.push_back(v.data());
        std::string error = emulate::run(*k, g, pointers.data());
        if (!error.empty()) fail(error);
    };
}

}  // namespace

API cuModuleLoadData(CUmod_st** m, const void* image) {
    LOCKED;
    TRY(ready());
    std::string ptx((const char*)image);
    if (ptx.find(".version") == std::string::npos) return invalid_image;
    *m = new CUmod_st;
    read(**m, ptx);
    return success;
}
API cuModuleLoadDataEx(CUmod_st** m, const void* image, unsigned, int*, void**) { return cuModuleLoadData(m, image); }
API cuModuleUnload(CUmod_st* m) { return delete m, success; }

API cuModuleGetFunction(CUfunc_st** f, CUmod_st* m, const char* name) {
    LOCKED;
    auto declared = m->parameters.find(name);
    const emulate::Kernel* k = emulate::find(name);
    if (declared == m->parameters.end() || !k) return not_found;
    if (declared->second != k->sizes) {
        fprintf(stderr, "stand-in GPU: the PTX of %s was not made from the source that the emulator runs\n", name);
        return invalid_ptx;
    }
    auto& slot = m->functions[name];
    if (!slot) slot.reset(new CUfunc_st{k});
    return *f = slot.get(), success;
}

API cuFuncSetAttribute(CUfunc_st* f, int attribute, int value) {
    if (attribute != 8) return success;  // MAX_DYNAMIC_SHARED_SIZE_BYTES
    if (value < 0 || size_t(value) > emulate::shared_limit) return invalid_value;
    return f->shared_limit = value, success;
}
API cuFuncGetAttribute(int* value, int attribute, CUfunc_st* f) { return *value = attribute == 0 ? 1024 : attribute == 8 ? int(f->shared_limit) : 0, success; }
API cuFuncSetCacheConfig(CUfunc_st*, int) { return success; }

API cuLaunchKernel(CUfunc_st* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, CUstream_st* s, void** params,
                   void** extra) {
    LOCKED;
    emulate::Grid g{{gx, gy, gz}, {bx, by, bz}, shared};
    if (!f) return invalid_handle;
    if (extra || !params || !launchable(f, g)) return invalid_value;
    return enqueue(s, launch(f->kernel, g, params));
}
