package main

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// nvrtc is the functions of NVIDIA's run-time compiler that we need.
type nvrtc struct {
	version       func(major, minor *int32) int32
	create        func(program *uintptr, source, name string, headers int32, texts, names uintptr) int32
	compileIt     func(program uintptr, n int32, options unsafe.Pointer) int32
	destroy       func(program *uintptr) int32
	logSize       func(program uintptr, n *uint64) int32
	log           func(program uintptr, text *byte) int32
	ptxSize       func(program uintptr, n *uint64) int32
	ptx           func(program uintptr, text *byte) int32
	errorToString func(code int32) string
}

func openNVRTC(path string) (*nvrtc, error) {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("open NVRTC: %w; scripts/ptx.sh fetches it", err)
	}
	c := &nvrtc{}
	for name, f := range map[string]any{
		"nvrtcVersion": &c.version, "nvrtcCreateProgram": &c.create, "nvrtcCompileProgram": &c.compileIt, "nvrtcDestroyProgram": &c.destroy,
		"nvrtcGetProgramLogSize": &c.logSize, "nvrtcGetProgramLog": &c.log, "nvrtcGetPTXSize": &c.ptxSize, "nvrtcGetPTX": &c.ptx,
		"nvrtcGetErrorString": &c.errorToString,
	} {
		purego.RegisterLibFunc(f, lib, name)
	}
	var major, minor int32
	if c.version(&major, &minor); major != 11 || minor != 8 {
		return nil, fmt.Errorf("NVRTC %d.%d, want 11.8: another version makes other PTX", major, minor)
	}
	return c, nil
}

// compile returns PTX (for a compute_ architecture) and the compiler's log, which holds what ptxas said.
func (c *nvrtc) compile(source string, options ...string) (ptx []byte, log string, err error) {
	var program uintptr
	if code := c.create(&program, source, "kernels.cu", 0, 0, 0); code != 0 {
		return nil, "", fmt.Errorf("create program: %s", c.errorToString(code))
	}
	defer c.destroy(&program)
	var pins runtime.Pinner
	defer pins.Unpin()
	pointers := make([]*byte, len(options))
	for i, o := range options {
		text := append([]byte(o), 0)
		pins.Pin(&text[0])
		pointers[i] = &text[0]
	}
	code := c.compileIt(program, int32(len(options)), unsafe.Pointer(&pointers[0]))
	log = text(program, c.logSize, c.log)
	if code != 0 {
		return nil, log, fmt.Errorf("%s\n%s", c.errorToString(code), log)
	}
	return []byte(text(program, c.ptxSize, c.ptx)), log, nil
}

func text(program uintptr, size func(uintptr, *uint64) int32, get func(uintptr, *byte) int32) string {
	var n uint64
	if size(program, &n) != 0 || n == 0 {
		return ""
	}
	b := make([]byte, n)
	if get(program, &b[0]) != 0 {
		return ""
	}
	return strings.TrimRight(string(b), "\x00")
}
