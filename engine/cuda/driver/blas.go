//go:build cuda && linux

package driver

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
	"gorgonia.org/cu"

	"lorad/engine/cuda/device"
)

// library is a cuBLAS that was found. Its calls are those of version 11, which later ones still have.
type library struct {
	name string     // with its version
	lt   *ltLibrary // nil: there is none
	noLt error      // why

	create       func(handle *uintptr) int32
	destroy      func(handle uintptr) int32
	setStream    func(handle uintptr, stream unsafe.Pointer) int32
	setWorkspace func(handle uintptr, at uintptr, bytes uintptr) int32
	setMathMode  func(handle uintptr, mode int32) int32
	version      func(handle uintptr, version *int32) int32
	gemm         func(handle uintptr, opA, opB, m, n, k int32, alpha *float32, a uintptr, typeA, ldA int32, b uintptr, typeB, ldB int32,
		beta *float32, c uintptr, typeC, ldC, compute, algorithm int32) int32
}

// Of cublas_api.h and library_types.h.
const (
	opNone, opTransposed    = 0, 1
	typeF32, typeBF16       = 0, 14
	computeF32              = 68
	algorithmDefault        = -1
	mathNoReducedReductions = 16
)

var blasNames = []string{"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"}

// blasFolders are where installers put cuBLAS that the system's loader does not search.
var blasFolders = []string{"/usr/local/cuda/lib64", "/usr/local/cuda-1*/lib64", "/opt/cuda/lib64", "/usr/local/lib/python3*/*-packages/nvidia/cu*/lib",
	"/usr/lib/python3*/*-packages/nvidia/cu*/lib"}

var libraries struct {
	sync.Mutex
	byPath map[string]*library
}

// loadBLAS loads cuBLAS, once. It needs no driver for that.
func loadBLAS(path string) (*library, error) {
	libraries.Lock()
	defer libraries.Unlock()
	if l := libraries.byPath[path]; l != nil {
		return l, nil
	}
	handle, name, err := openFirst(path)
	if err != nil {
		return nil, err
	}
	l := &library{}
	err = register(handle, name, []symbol{{&l.create, "cublasCreate_v2"}, {&l.destroy, "cublasDestroy_v2"}, {&l.setStream, "cublasSetStream_v2"}, {&l.setWorkspace, "cublasSetWorkspace_v2"},
		{&l.setMathMode, "cublasSetMathMode"}, {&l.version, "cublasGetVersion_v2"}, {&l.gemm, "cublasGemmEx"}})
	if err != nil {
		return nil, err
	}
	var v int32
	l.version(0, &v) // needs no handle
	l.name = fmt.Sprintf("cuBLAS %s (%s)", dotted(int(v)), filepath.Base(name))
	if l.lt, l.noLt = loadLt(name); l.noLt == nil {
		l.name += ", cuBLASLt " + dotted(int(l.lt.version()))
	} else {
		l.lt, l.name = nil, l.name+", without cuBLASLt"
	}
	if libraries.byPath == nil {
		libraries.byPath = map[string]*library{}
	}
	libraries.byPath[path] = l
	return l, nil
}

// symbol is a call of a library, and where it goes.
type symbol struct {
	to   any
	name string
}

func register(handle uintptr, library string, all []symbol) error {
	for _, s := range all {
		at, err := purego.Dlsym(handle, s.name)
		if err != nil {
			return fmt.Errorf("cuBLAS: %s: %w: install version 11 or newer", library, err)
		}
		purego.RegisterFunc(s.to, at)
	}
	return nil
}

// dotted: 120804 and, before 12, 11805 are 12.8.4 and 11.8.5.
func dotted(v int) string {
	if v < 100000 {
		return fmt.Sprintf("%d.%d.%d", v/1000, v%1000/100, v%100)
	}
	return fmt.Sprintf("%d.%d.%d", v/10000, v%10000/100, v%100)
}

func openFirst(path string) (handle uintptr, name string, err error) {
	tries := []string{path}
	if path == "" {
		tries = blasNames
		for _, folder := range blasFolders {
			for _, n := range blasNames {
				found, _ := filepath.Glob(filepath.Join(folder, n))
				tries = append(tries, found...)
			}
		}
	}
	for _, name := range tries {
		handle, e := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if e == nil {
			return handle, name, nil
		}
		if err == nil {
			err = e
		}
	}
	return 0, "", fmt.Errorf("no cuBLAS: %w: install cuBLAS 12 or 13 (libcublas-12-* of NVIDIA's packages, or pip install nvidia-cublas-cu12), "+
		"and have the loader find it (LD_LIBRARY_PATH, ldconfig)", err)
}

// blas is cuBLAS on one device, with a workspace of its own: products are then the same bits each time, and may be recorded.
type blas struct {
	lib         *library
	handle      uintptr
	workspace   cu.DevicePtr
	lt          *lt      // nil: products go through cublasGemmEx
	says        string   // of lt's table
	alpha, beta *float32 // read during the call; on the heap, where C may look
}

const workspaceBytes = 32 << 20 // as NVIDIA recommends for Hopper

func openBLAS(c Config, gpu string, on cu.Stream) (*blas, error) {
	lib, err := loadBLAS(c.BLAS)
	if err != nil {
		return nil, err
	}
	b := &blas{lib: lib, alpha: new(float32), beta: new(float32)}
	if err := status("create", lib.create(&b.handle)); err != nil {
		return nil, err
	}
	if err = b.setUp(on); err == nil {
		err = b.openLt(c.Tuned, gpu, on)
	}
	if err != nil {
		err = errors.Join(err, b.close())
	}
	return b, err
}

func (b *blas) setUp(on cu.Stream) (err error) {
	if b.workspace, err = cu.MemAlloc(workspaceBytes); err != nil {
		return err
	}
	if err := status("set stream", b.lib.setStream(b.handle, handle(on))); err != nil {
		return err
	}
	if err := status("set workspace", b.lib.setWorkspace(b.handle, uintptr(b.workspace), workspaceBytes)); err != nil {
		return err
	}
	return status("set math mode", b.lib.setMathMode(b.handle, mathNoReducedReductions))
}

// openLt does nothing when there is no cuBLASLt. Tables that cannot be read are not used: without them products are slower, and no other.
func (b *blas) openLt(tuned []byte, gpu string, on cu.Stream) (err error) {
	if b.lib.lt == nil {
		return nil
	}
	all, unread := readTables(tuned)
	if b.lt, err = openLt(b.lib.lt, gpu, on, b.workspace, all); err != nil {
		return err
	}
	if unread != nil {
		b.says = fmt.Sprintf(", tables of tuned products not used (%v)", unread)
	} else if n := len(b.lt.table.Better); n > 0 {
		b.says = fmt.Sprintf(", %d products tuned", n)
	}
	return nil
}

// name says what products go through.
func (b *blas) name() string { return b.lib.name + b.says }

func (b *blas) close() error {
	if b.lib == nil || b.handle == 0 {
		return nil
	}
	errs := []error{status("destroy", b.lib.destroy(b.handle))}
	if b.lt != nil {
		errs = append(errs, b.lt.close())
	}
	if b.workspace != 0 {
		errs = append(errs, cu.MemFree(b.workspace))
	}
	*b = blas{}
	return errors.Join(errs...)
}

// gemm: cuBLAS is column-major, where a row-major matrix is its transposed one; so it computes the transposed of C, op(B)^T op(A)^T.
func (b *blas) gemm(transA, transB bool, m, n, k int, alpha float32, x, y device.Matrix, beta float32, c device.Matrix) error {
	if m == 0 || n == 0 {
		return nil
	}
	if x.Type != y.Type {
		return errors.New("A and B are of two types")
	}
	*b.alpha, *b.beta = alpha, beta
	if b.lt != nil {
		known, err := b.lt.gemm(product(transA, transB, m, n, k, x, y, c), b.alpha, x, y, b.beta, c)
		if known || err != nil {
			return err
		}
	}
	code := b.lib.gemm(b.handle, op(transB), op(transA), int32(n), int32(m), int32(k), b.alpha, uintptr(y.At), dataType(y.Type), int32(y.LD),
		uintptr(x.At), dataType(x.Type), int32(x.LD), b.beta, uintptr(c.At), dataType(c.Type), int32(c.LD), computeF32, algorithmDefault)
	if err := status("GemmEx", code); err != nil {
		return fmt.Errorf("[%d, %d] x [%d, %d]: %w", m, k, k, n, err)
	}
	return nil
}

func op(trans bool) int32 {
	if trans {
		return opTransposed
	}
	return opNone
}

func dataType(t device.Type) int32 {
	if t == device.BF16 {
		return typeBF16
	}
	return typeF32
}

const codeNotSupported = 15

var statusNames = map[int32]string{1: "not initialised", 3: "allocation failed", 7: "invalid value", 8: "architecture mismatch", 11: "mapping error",
	13: "execution failed", 14: "internal error", codeNotSupported: "not supported", 16: "licence error"}

func status(call string, code int32) error {
	switch {
	case code == 0:
		return nil
	case code == 3:
		return fmt.Errorf("cuBLAS: %s: %w: %s", call, device.ErrOutOfMemory, statusNames[code])
	case statusNames[code] != "":
		return fmt.Errorf("cuBLAS: %s: %s", call, statusNames[code])
	}
	return fmt.Errorf("cuBLAS: %s: status %d", call, code)
}
