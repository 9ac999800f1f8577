// Package cpu is kernel.Ops in float32 for the processors that lorad runs on: Go assembly for amd64 with AVX-512 or with AVX2 and
// FMA, for arm64 with NEON, and plain Go elsewhere.
//
// Matrix products are tiles of registers under one driver (gemm.go): a tile multiplies a few rows of A, read in place through two
// strides, with a narrow panel of B, packed so that one vector load follows the other. Transposes are only a matter of strides and
// packing; ragged edges go through a scratch tile. Where B comes from is an operand's business (operand.go): stored matrices are
// packed block by block, frozen weights are packed once (frozen.go) or unpacked into the cache from a compact form. An adapter's term is
// added to each piece of C while it is in the cache. Calls do not allocate: what a product and a thread need is lent (stack.go).
//
// In bf16 (format.go) a word holds two neighbours along k, and strips, panels and the driver stay as they are. Rows of A are rounded on
// their way into the tile, once per slab of columns, and fetched while the tiles before them compute: without that, a quarter of the time went into
// waiting for them. Without the instruction, f32 tiles compute the same bits at the speed of f32.
//
// Bits are a function of the arguments and the level alone. Each element of C is summed in the order of k, in blocks whose length follows from
// k; threads share out tiles, never sums. NEON, AVX2 and AVX-512 do the same fused operations on each element and give the same bits.
//
// Why not cgo and a BLAS: users would need a C compiler, and the libraries at hand either change their sums with the number of threads or
// are slower at LoRA's shapes (a rank of 16 beside thousands of rows). Why not simd/archsimd: experimental, amd64 only and spills its sums.
package cpu

import (
	"fmt"

	"lorad/engine/kernel"
)

// Level names an instruction set.
type Level int

// Levels, from the one that runs anywhere to the fastest.
const (
	Go Level = iota
	NEON
	AVX2
	AVX512
	AVX512BF16
)

func (l Level) String() string {
	switch l {
	case Go:
		return "go"
	case NEON:
		return "neon"
	case AVX2:
		return "avx2"
	case AVX512:
		return "avx512"
	case AVX512BF16:
		return "avx512-bf16"
	}
	return fmt.Sprintf("Level(%d)", int(l))
}

// Available lists the levels of this machine, the best last.
func Available() []Level {
	all := []Level{Go}
	for _, l := range []Level{NEON, AVX2, AVX512, AVX512BF16} {
		if supported(l) {
			all = append(all, l)
		}
	}
	return all
}

// Ops implements kernel.Ops[float32]. What it does not override is the reference's.
type Ops struct {
	kernel.Ref[float32]
	level   Level
	simd    simd
	kernels kernels
	team    *team
	scratch stack[scratch]
	jobs    stack[job]
}

var _ kernel.Ops[float32] = (*Ops)(nil)

// New returns the best operations for this machine, on so many threads; 0 or less is as many as the program may use.
func New(threads int) kernel.Ops[float32] {
	levels := Available()
	o, err := NewLevel(threads, levels[len(levels)-1])
	if err != nil { // Available has just said otherwise
		panic(err)
	}
	return o
}

// NewLevel forces a level: for tests, and where unlike machines are to compute the same bits.
func NewLevel(threads int, level Level) (*Ops, error) {
	if level != Go && !supported(level) {
		return nil, fmt.Errorf("cpu level %s: not supported by this machine: choose one of %v", level, Available())
	}
	k := kernelsOf(level)
	return &Ops{level: level, simd: k.simd, kernels: k, team: newTeam(threads)}, nil
}

// format is how weights in a form of their own are unpacked.
func (o *Ops) format(p kernel.Precision) format {
	switch {
	case p == kernel.F32:
		return full
	case o.kernels.pairs.tile.run != nil:
		return pairs
	}
	return swapped
}

// Level is the instruction set in use.
func (o *Ops) Level() Level { return o.level }

// Threads is the number of threads that Gemm and Parallel use at most.
func (o *Ops) Threads() int { return o.team.threads }

// Parallel shares f(0) .. f(n-1) among the threads.
func (o *Ops) Parallel(n int, f func(i int)) { o.team.run(n, call(f)) }

// call is a function as a task. A func value fits into an interface without an allocation.
type call func(i int)

func (f call) piece(i int) { f(i) }
