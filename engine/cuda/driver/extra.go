//go:build cuda && linux

package driver

// #include "shim.h"
import "C"

import (
	"unsafe"

	"gorgonia.org/cu"
)

// The calls that gorgonia.org/cu lacks.

const (
	attributeDynamicShared = 8 // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
	registerPortable       = 1 // CU_MEMHOSTREGISTER_PORTABLE
	captureThreadLocal     = 1 // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may do as they like meanwhile
)

// result is what a call returned, as gorgonia.org/cu's errors.
func result(code C.int) error {
	if code == 0 {
		return nil
	}
	return as(cu.Success, int(code))
}

// as names the type of gorgonia.org/cu's errors, which it does not export.
func as[E interface {
	~int
	error
}](_ E, code int) error {
	return E(code)
}

// handle is the driver's own of a stream or a function: the only thing in gorgonia.org/cu's struct.
func handle[T cu.Stream | cu.Function](of T) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&of))
}

// allocPinned takes memory of the host that the device copies from and to while the processor does something else.
func allocPinned(bytes int) ([]byte, error) {
	var p unsafe.Pointer
	if err := result(C.cuMemHostAlloc(&p, C.size_t(bytes), 0)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), bytes), nil
}

// lock pins memory of the host that is there already, for all devices.
func lock(host []byte) error {
	return result(C.cuMemHostRegister(unsafe.Pointer(&host[0]), C.size_t(len(host)), registerPortable))
}

func unlock(host []byte) error {
	return result(C.cuMemHostUnregister(unsafe.Pointer(&host[0])))
}

// allowShared lets a kernel have more dynamic shared memory than the 48 KiB that all have.
func allowShared(f cu.Function, bytes int) error {
	return result(C.cuFuncSetAttribute(handle(f), attributeDynamicShared, C.int(bytes)))
}

func beginCapture(s cu.Stream) error {
	return result(C.cuStreamBeginCapture(handle(s), captureThreadLocal))
}

func endCapture(s cu.Stream) (graph unsafe.Pointer, err error) {
	err = result(C.cuStreamEndCapture(handle(s), &graph))
	return graph, err
}

func instantiate(graph unsafe.Pointer) (exec unsafe.Pointer, err error) {
	err = result(C.cuGraphInstantiateWithFlags(&exec, graph, 0))
	return exec, err
}

func launchGraph(exec unsafe.Pointer, s cu.Stream) error {
	return result(C.cuGraphLaunch(exec, handle(s)))
}

func destroyGraph(graph unsafe.Pointer) error { return result(C.cuGraphDestroy(graph)) }

func destroyExec(exec unsafe.Pointer) error { return result(C.cuGraphExecDestroy(exec)) }
