package standin

import (
	"fmt"
	"path/filepath"
	"unsafe"

	"github.com/ebitengine/purego"

	"lorad/engine/cuda/device"
)

// api is the driver's and cuBLAS's entry points that Device calls, by their names there.
type api struct {
	init          func(flags uint32) int32
	retain        func(ctx *uintptr, dev int32) int32
	release       func(dev int32) int32
	setCurrent    func(ctx uintptr) int32
	attribute     func(value *int32, attribute, dev int32) int32
	errorString   func(code int32, text **byte) int32
	memInfo       func(free, total *uint64) int32
	alloc         func(p *uint64, bytes uint64) int32
	free          func(p uint64) int32
	upload        func(to uint64, from unsafe.Pointer, bytes uint64, stream uintptr) int32
	download      func(to unsafe.Pointer, from, bytes uint64, stream uintptr) int32
	copy          func(to, from, bytes uint64, stream uintptr) int32
	set           func(p uint64, value byte, bytes uint64, stream uintptr) int32
	streamCreate  func(stream *uintptr, flags uint32) int32
	streamDestroy func(stream uintptr) int32
	streamSync    func(stream uintptr) int32
	beginCapture  func(stream uintptr, mode int32) int32
	endCapture    func(stream uintptr, graph *uintptr) int32
	instantiate   func(exec *uintptr, graph uintptr, flags uint64) int32
	graphLaunch   func(exec, stream uintptr) int32
	graphDestroy  func(graph uintptr) int32
	execDestroy   func(exec uintptr) int32
	moduleLoad    func(module *uintptr, image unsafe.Pointer) int32
	moduleUnload  func(module uintptr) int32
	getFunction   func(function *uintptr, module uintptr, name string) int32
	setFunction   func(function uintptr, attribute, value int32) int32
	launch        func(function uintptr, gx, gy, gz, bx, by, bz, shared uint32, stream uintptr, args, extra unsafe.Pointer) int32
	blasCreate    func(handle *uintptr) int32
	blasDestroy   func(handle uintptr) int32
	blasStream    func(handle, stream uintptr) int32
	gemm          func(handle uintptr, ta, tb, m, n, k int32, alpha *float32, a uint64, typeA, lda int32, b uint64, typeB, ldb int32, beta *float32, c uint64, typeC, ldc, compute, algorithm int32) int32
	order         func(seed uint32)
	memory        func(bytes uint64)
}

func load(dir string) (*api, error) {
	a := &api{}
	for file, names := range map[string]map[string]any{
		"libcuda.so.1": {
			"cuInit": &a.init, "cuDevicePrimaryCtxRetain": &a.retain, "cuDevicePrimaryCtxRelease_v2": &a.release, "cuCtxSetCurrent": &a.setCurrent,
			"cuDeviceGetAttribute": &a.attribute, "cuGetErrorString": &a.errorString, "cuMemGetInfo_v2": &a.memInfo,
			"cuMemAlloc_v2": &a.alloc, "cuMemFree_v2": &a.free, "cuMemcpyHtoDAsync_v2": &a.upload, "cuMemcpyDtoHAsync_v2": &a.download,
			"cuMemcpyDtoDAsync_v2": &a.copy, "cuMemsetD8Async": &a.set,
			"cuStreamCreate": &a.streamCreate, "cuStreamDestroy_v2": &a.streamDestroy, "cuStreamSynchronize": &a.streamSync,
			"cuStreamBeginCapture_v2": &a.beginCapture, "cuStreamEndCapture": &a.endCapture, "cuGraphInstantiateWithFlags": &a.instantiate,
			"cuGraphLaunch": &a.graphLaunch, "cuGraphDestroy": &a.graphDestroy, "cuGraphExecDestroy": &a.execDestroy,
			"cuModuleLoadData": &a.moduleLoad, "cuModuleUnload": &a.moduleUnload, "cuModuleGetFunction": &a.getFunction,
			"cuFuncSetAttribute": &a.setFunction, "cuLaunchKernel": &a.launch, "standin_order": &a.order, "standin_memory": &a.memory,
		},
		"libcublas.so.12": {"cublasCreate_v2": &a.blasCreate, "cublasDestroy_v2": &a.blasDestroy, "cublasSetStream_v2": &a.blasStream, "cublasGemmEx": &a.gemm},
	} {
		lib, err := purego.Dlopen(filepath.Join(dir, file), purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err != nil {
			return nil, err
		}
		for name, f := range names {
			purego.RegisterLibFunc(f, lib, name)
		}
	}
	return a, nil
}

// check turns a code into an error.
func (a *api) check(operation string, code int32) error {
	const outOfMemory = 2
	switch code {
	case 0:
		return nil
	case outOfMemory:
		return fmt.Errorf("%s: %w", operation, device.ErrOutOfMemory)
	}
	var text *byte
	a.errorString(code, &text)
	return fmt.Errorf("%s: %s", operation, goString(text))
}

func goString(p *byte) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}
