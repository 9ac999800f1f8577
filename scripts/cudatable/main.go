// Command cudatable writes the shim's table: which calls of the CUDA driver the program makes, and under which name the driver exports each.
//
// The calls are those that gorgonia.org/cu makes, found in its source, and the ones that we add. A name in the source is the API's; a driver exports
// some calls once for each change of their signature, and the name without a number is then the oldest, with 32-bit addresses. cuda.h hides that behind
// macros; the declarations that we build with have no macros, so the table has what they say.
//
//	go run ./scripts/cudatable -cu "$(go list -m -f '{{.Dir}}' gorgonia.org/cu)" -out engine/cuda/driver
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// added are the calls that gorgonia.org/cu lacks and shim.h declares.
const added = `cuMemHostAlloc cuMemHostRegister cuMemHostUnregister cuFuncSetAttribute cuStreamBeginCapture cuStreamEndCapture cuGraphInstantiateWithFlags cuGraphLaunch`

// needed are the calls that package driver makes: a driver that lacks one of them is too old.
const needed = added + ` cuDriverGetVersion cuDeviceGetCount cuDeviceGet cuDeviceGetName cuDeviceGetUuid cuDeviceTotalMem cuDeviceGetAttribute
cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease cuCtxSetCurrent cuStreamCreate cuStreamDestroy cuStreamSynchronize cuEventCreate cuEventDestroy
cuEventRecord cuEventSynchronize cuEventElapsedTime cuMemGetInfo cuMemAlloc cuMemFree cuMemFreeHost cuMemcpyHtoDAsync cuMemcpyDtoHAsync cuMemcpyDtoDAsync cuMemsetD8Async
cuModuleLoadData cuModuleUnload cuModuleGetFunction cuLaunchKernel cuGraphDestroy cuGraphExecDestroy`

// versioned are the calls whose name of today stands for a later export, in CUDA 11.
var versioned = map[string]string{"cuTexRefSetAddress2D": "_v3"}

const second = `cuDeviceTotalMem cuCtxCreate cuCtxDestroy cuCtxPopCurrent cuCtxPushCurrent cuModuleGetGlobal cuMemGetInfo cuMemAlloc cuMemAllocPitch
cuMemFree cuMemGetAddressRange cuMemcpyHtoD cuMemcpyDtoH cuMemcpyDtoD cuMemcpyDtoA cuMemcpyAtoD cuMemcpyHtoA cuMemcpyAtoH cuMemcpyAtoA
cuMemcpyHtoAAsync cuMemcpyAtoHAsync cuMemcpy2D cuMemcpy2DUnaligned cuMemcpy3D cuMemcpyHtoDAsync cuMemcpyDtoHAsync cuMemcpyDtoDAsync
cuMemcpy2DAsync cuMemcpy3DAsync cuMemsetD8 cuMemsetD16 cuMemsetD32 cuMemsetD2D8 cuMemsetD2D16 cuMemsetD2D32 cuArrayCreate
cuArrayGetDescriptor cuArray3DCreate cuArray3DGetDescriptor cuTexRefSetAddress cuTexRefGetAddress cuStreamDestroy cuEventDestroy cuLinkCreate
cuLinkAddData cuLinkAddFile cuMemHostRegister cuStreamBeginCapture cuDevicePrimaryCtxRelease cuDevicePrimaryCtxReset cuDevicePrimaryCtxSetFlags`

func main() {
	log.SetFlags(0)
	cu := flag.String("cu", "", "folder of gorgonia.org/cu's source")
	out := flag.String("out", ".", "folder to write trampolines.S and symbols.h to")
	flag.Parse()
	names, err := calls(*cu)
	if err != nil {
		log.Fatal(err)
	}
	for file, text := range map[string][]byte{"trampolines.S": trampolines(names), "symbols.h": symbols(names)} {
		if err := os.WriteFile(filepath.Join(*out, file), text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// calls lists what is both called in the source and declared in its cuda.h, and what we add, sorted.
func calls(dir string) ([]string, error) {
	header, err := os.ReadFile(filepath.Join(dir, "cmd/genlib/cuda.h"))
	if err != nil {
		return nil, err
	}
	declared := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(?:.*CUresult )?(cu[A-Z]\w*)\(`).FindAllSubmatch(header, -1) {
		declared[string(m[1])] = true
	}
	names := strings.Fields(added)
	called := regexp.MustCompile(`\bcu[A-Z]\w*`)
	for _, pattern := range []string{"*.go", "*.c"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			for _, n := range called.FindAllString(string(text), -1) {
				if declared[n] && n != "cuInit" { // the shim has its own
					names = append(names, n)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

const head = "/* Written by go run ./scripts/cudatable; not by hand. */\n"

func trampolines(names []string) []byte {
	var b bytes.Buffer
	b.WriteString("//go:build cuda && linux\n\n" + head + `
/* A call goes where the table says: to the driver, or to a function that says that there is none. Hidden: nobody outside the program sees these names. */
#if defined(__x86_64__)
#define CALL(name, i) .globl name; .hidden name; .type name, @function; .balign 16; name: endbr64; jmp *(lorad_cuda_table + 8 * (i))(%rip); .size name, . - name
#elif defined(__aarch64__)
#define CALL(name, i) .globl name; .hidden name; .type name, %function; .balign 16; name: bti c; adrp x16, lorad_cuda_table; add x16, x16, :lo12:lorad_cuda_table; ldr x16, [x16, 8 * (i)]; br x16; .size name, . - name
#else
#error "no CUDA driver for this processor"
#endif

	.hidden lorad_cuda_table
	.text
`)
	for i, n := range names {
		fmt.Fprintf(&b, "CALL(%s, %d)\n", n, i)
	}
	b.WriteString("\n\t.section .note.GNU-stack, \"\", %progbits\n")
	return b.Bytes()
}

func symbols(names []string) []byte {
	v := map[string]string{}
	for _, n := range strings.Fields(second) {
		v[n] = "_v2"
	}
	for n, suffix := range versioned {
		v[n] = suffix
	}
	need := strings.Fields(needed)
	var b bytes.Buffer
	b.WriteString(head + "\n/* In the order of trampolines.S: what the driver exports, and whether we need it. */\n")
	for _, n := range names {
		one := 0
		if slices.Contains(need, n) {
			one = 1
		}
		fmt.Fprintf(&b, "SYMBOL(%q, %d)\n", n+v[n], one)
	}
	return b.Bytes()
}
