// Package driver is the CUDA driver as a device.Device: loaded when somebody asks for it, from a program that starts on any machine.
//
// The calls are gorgonia.org/cu's. That package names libcuda.so.1 to the linker, and ends the program when there is no GPU; so under the build tag cuda
// the names that it calls are defined here, hidden: each is a jump through a table (shim.c, trampolines.S) that says "no device" until Open has loaded a
// driver with dlopen. An empty libcuda.a satisfies the linker. Nothing is loaded before Open, Look or List, so nobody pays for a driver who trains on the
// processor. Calls that gorgonia.org/cu lacks (pinned memory, function attributes, graphs) go through the same table. cuBLAS has no such table: its few
// calls are looked up by purego in the newest of libcublas.so.13, .12 and .11.
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
	BLAS string   // cuBLAS; empty: libcublas.so.13, .12 or .11
	PTX  []string // texts of modules with the kernels to launch
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
