// Package driver is the CUDA driver as a device.Device: loaded when somebody asks for it, from a program that starts on any machine.
//
// The calls are gorgonia.org/cu's. That package names libcuda.so.1 to the linker, and ends the program when there is no GPU; so under the build tag cuda
// the names that it calls are defined here, hidden: each is a jump through a table (shim.c, trampolines.S) that says "no device" until Open has loaded a
// driver with dlopen. An empty libcuda.a satisfies the linker. Nothing is loaded before Open, Look or List, so nobody pays for a driver who trains on the
// processor. Calls that gorgonia.org/cu lacks (pinned memory, function attributes, graphs) go through the same table. cuBLAS has no such table: its few
// calls are looked up by purego in the newest of libcublas.so.13, .12 and .11, and those of cuBLASLt in the library beside it.
//
// Matrix products go through cuBLASLt. Descriptors, layouts and the algorithm are made once for each Product: its shape, types, strides and alignments. By
// default the algorithm is the first that cuBLASLt's heuristic names, among those that do not cut the inner dimension or add the parts up in f32, each
// in one order, within a workspace of 32 MiB. That choice follows from the device, the library and the product, and from no clock: two runs, and two
// nodes of one kind, compute the same bits. What cuBLASLt does not know, or is not there for, goes through cublasGemmEx.
//
// An algorithm that was measured to be faster may be taken instead only if it computes the very bits of the heuristic's first. Tune, which runs when
// a person asks for it and never by itself, holds candidates to that: on operands whose products cancel (operand.go), so that a result is nothing but the rounding of
// partial sums, and an algorithm that adds in another order, cuts elsewhere or is wider differs in nearly every element. There should be such candidates, as the order in
// which an element's sum is made does not depend on the shape of tiles, on stages or on how blocks are dealt to multiprocessors. What is found lies in a table, by device and
// version, and says against which first choice it was measured: another driver's heuristic makes it void, product by product. So a table changes time and no bit; nodes need not have the
// same ones, and a lost or damaged one costs nothing but speed.
//
// Why not the fastest algorithm outright: two nodes would measure differently and compute differently, and a run would have other bits when it is
// repeated. Why not one such table for all nodes of a cluster: it would be an input of the run, to be kept and copied with it for ever. Why not at the first use: that is within a
// recording, where nothing runs, and in the middle of a step, where there is no memory for operands.
//
// The names of the table stand for one signature each for ever: that of CUDA 11, which every later driver still exports. The declarations to build with
// are those that gorgonia.org/cu carries itself; scripts/go-cuda sets the compiler up, and `go generate` writes the table.
//
// One thread of the operating system belongs to each device. The context is current there, and a recording must begin and end on one thread.
//
// Why not otherwise: a second program for GPUs would be two things to install; a plugin needs the same toolchain on both sides and a program with
// cgo all the same; linking lazily (-z lazy) still needs the library when the program starts.
//
// Without the tag (or a C compiler) the package says why CUDA is off, and everything else of the program is the same.
package driver

import (
	"errors"

	"lorad/engine/cuda/device"
)

//go:generate sh -c "go run ../../../scripts/cudatable -cu \"$(go list -m -f '{{.Dir}}' gorgonia.org/cu)\" -out ."

// Config says where the libraries are. The zero value finds them as the system's loader does.
type Config struct {
	CUDA string   // the driver; empty: libcuda.so.1. The first one that was loaded serves the process
	BLAS string   // cuBLAS; empty: libcublas.so.13, .12 or .11. cuBLASLt is the one beside it
	PTX  []string // texts of modules with the kernels to launch
	// Tuned is what Tune returned, for any devices; empty: nothing yet. It changes how long products take, and no bit.
	Tuned []byte
}

// ErrOff is in every error that says that there is no CUDA here at all.
var ErrOff = errors.New("CUDA is off")

// Found is what there is of CUDA on this machine.
type Found struct {
	Driver    string // the CUDA version that the driver is for; empty: none
	DriverErr error
	BLAS      string
	BLASErr   error
	Devices   []device.Info
}

// List is the GPUs of this machine, in the order of Open's index.
func List(c Config) ([]device.Info, error) {
	f := Look(c)
	return f.Devices, f.DriverErr
}
