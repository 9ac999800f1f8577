// Package kernels is the GPU's code: .cu sources, one family of kernels per file, and the PTX that NVRTC 11.8 made of them for compute capability
// 8.0, which every later driver compiles for its own device.
//
// The PTX is committed, so that neither users nor builds need NVIDIA's compiler; the integration run makes it again and compares bytes
// (scripts/ptx.sh). Sources have no includes: the same files, compiled as C++ by engine/cuda/standin, run on the processor in the tests.
//
// Rules that all kernels keep: sums in f32 in an order that depends on the shape alone, no atomic operations on floats, no memory beyond their arguments
// and shared memory. A row-wise kernel takes a warp or a block per row, so the bits of a row do not depend on how many rows there are.
package kernels

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.ptx
var ptx embed.FS

// Sources is the .cu and .cuh files. Only tests use it, so it is not part of the program.
//
//go:embed *.cu *.cuh
var Sources embed.FS

// Module is one file's PTX.
type Module struct {
	Name    string // "elementwise"
	PTX     string
	Kernels []string // what it defines
}

// Modules is all of them, ordered by name.
func Modules() []Module {
	names, err := fs.Glob(ptx, "*.ptx")
	if err != nil {
		panic(err) // the pattern is constant
	}
	slices.Sort(names)
	modules := make([]Module, 0, len(names))
	for _, name := range names {
		text, err := ptx.ReadFile(name)
		if err != nil {
			panic(err) // embedded files are there
		}
		modules = append(modules, Module{strings.TrimSuffix(name, ".ptx"), string(text), entries(string(text))})
	}
	return modules
}

// entries is the names after ".entry".
func entries(text string) (names []string) {
	const word = ".entry "
	for {
		_, after, found := strings.Cut(text, word)
		if !found {
			return names
		}
		name, rest, _ := strings.Cut(after, "(")
		names, text = append(names, name), rest
	}
}
