// What the stand-in libraries know of the emulator.
#pragma once
#include <string>

#include "emulate.h"

namespace emulate {

// A Grid is how many threads a kernel runs in, and with how many bytes of dynamic shared memory.
struct Grid {
    dim3 blocks, threads;
    size_t shared;
};

const size_t shared_limit = 227 * 1024;

// find is a kernel by its name, or null.
const Kernel* find(const std::string& name);

// run runs a kernel to its end. What it returns is empty, or what went wrong.
std::string run(const Kernel&, const Grid&, void** args);

// order says how the threads of a block and the blocks of a grid take their turns: 0 is ascending, 1 descending, anything else is the seed of a shuffle that
// differs from turn to turn. With an odd number a warp goes on until all its threads wait for others: as far ahead of the other warps as it can be.
void order(unsigned seed);

}  // namespace emulate
