//go:build cuda && linux

package driver

// #cgo LDFLAGS: -L${SRCDIR}/lib -ldl
// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"fmt"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"lorad/engine/cuda/device"
)

// loaded is the process's driver: the table in shim.c has room for one, as a process has.
var loaded struct {
	sync.Mutex
	library string
}

// load loads the driver, once.
func load(library string) error {
	if library == "" {
		library = "libcuda.so.1"
	}
	loaded.Lock()
	defer loaded.Unlock()
	if loaded.library == library {
		return nil
	}
	if loaded.library != "" {
		return fmt.Errorf("CUDA: load %s: this process has already loaded %s", library, loaded.library)
	}
	name := C.CString(library)
	defer C.free(unsafe.Pointer(name))
	var code C.int
	if says := C.lorad_cuda_load(name, &code); says != nil {
		return explain(C.GoString(says), int(code))
	}
	loaded.library = library
	return nil
}

// Of cuInit.
const (
	codeNoDevice      = 100
	codeUnknown       = 999
	codeDriverOlder   = 35
	codeMismatch      = 803
	codeNotPermitted  = 800
	codeSystemNotDone = 802
)

// explain says what to do about a driver that does not load or start.
func explain(says string, code int) error {
	fix := "see NVIDIA's documentation of that error"
	switch code {
	case 0:
		return fmt.Errorf("%w: no CUDA driver: %s: install NVIDIA's driver for this machine's GPU (535 or newer); in a container, start it with --gpus all", ErrOff, says)
	case codeNoDevice:
		fix = "the driver sees no GPU: see nvidia-smi, and CUDA_VISIBLE_DEVICES if that is set"
	case codeMismatch:
		fix = "the driver's library is not of the kernel module's version: restart the machine after an update of the driver"
	case codeNotPermitted:
		fix = "this user may not open /dev/nvidia*: see their permissions"
	case codeSystemNotDone:
		fix = "the machine's fabric manager has not started: systemctl status nvidia-fabricmanager"
	case codeUnknown, codeDriverOlder:
		fix = "load the kernel module (nvidia-smi as root, or nvidia-modprobe -u), or restart the machine"
	}
	return fmt.Errorf("%w: the CUDA driver does not start: %s: %s", ErrOff, says, fix)
}

// Look loads the driver and cuBLAS and says what there is.
func Look(c Config) Found {
	var f Found
	f.DriverErr = load(c.CUDA) // first: a cuBLAS may want it
	if lib, err := loadBLAS(c.BLAS); err != nil {
		f.BLASErr = err
	} else {
		f.BLAS = lib.name
	}
	if f.DriverErr != nil {
		return f
	}
	f.Driver = version()
	if f.DriverErr = complete(); f.DriverErr != nil {
		return f
	}
	n, err := cu.NumDevices()
	for i := range n {
		info, e := describe(i)
		if err == nil {
			err = e
		}
		info.BLAS = f.BLAS
		f.Devices = append(f.Devices, info)
	}
	if err != nil {
		f.DriverErr = fmt.Errorf("CUDA: list the devices: %w", err)
	} else if n == 0 {
		f.DriverErr = fmt.Errorf("%w: the driver sees no GPU: see nvidia-smi, and CUDA_VISIBLE_DEVICES if that is set", ErrOff)
	}
	return f
}

// complete says which calls the driver lacks.
func complete() error {
	var first *C.char
	if n := C.lorad_cuda_missing(&first); n > 0 {
		return fmt.Errorf("%w: the driver (%s) lacks %d calls, %s first: install 535 or newer", ErrOff, version(), n, C.GoString(first))
	}
	return nil
}

// version is the CUDA version that the driver is for.
func version() string { v := cu.Version(); return fmt.Sprintf("CUDA %d.%d", v/1000, v%1000/10) }

const attributeSharedOptIn = cu.DeviceAttribute(97) // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN

func describe(index int) (info device.Info, err error) {
	d, err := cu.GetDevice(index)
	if err != nil {
		return info, err
	}
	if info.Name, err = d.Name(); err != nil {
		return info, err
	}
	id, err := d.UUID()
	if err != nil {
		return info, err
	}
	info.UUID, info.Driver = "GPU-"+id.String(), version()
	if info.Memory, err = d.TotalMem(); err != nil {
		return info, err
	}
	for _, a := range []struct {
		of cu.DeviceAttribute
		to *int
	}{{cu.ComputeCapabilityMajor, &info.Compute[0]}, {cu.ComputeCapabilityMinor, &info.Compute[1]}, {cu.MultiprocessorCount, &info.Processors},
		{attributeSharedOptIn, &info.SharedLimit}} {
		if *a.to, err = d.Attribute(a.of); err != nil {
			return info, err
		}
	}
	return info, nil
}
