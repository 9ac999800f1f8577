// Package device is what the CUDA trainer needs of a GPU: memory, launches of kernels by name, matrix products, and a recording of them all.
//
// It is the seam between two halves that have nothing else in common. Above it, engine/cuda is plain Go: which kernel, on which part
// of the arena, in which order. Below it, engine/cuda/driver knows the driver's API, its libraries and their versions. The tests of both run without a
// GPU: on a stand-in for the driver that runs the same kernels on the processor.
//
// One stream, and no call waits except Download, Fetch, Sync and Close; so an error of a kernel may come with a later call. A Device is used by one goroutine, which
// the driver binds to one thread.
package device

import "errors"

// Ptr is an address in device memory; 0 is none. Arithmetic is in bytes.
type Ptr uint64

// Type is the type of a matrix's elements.
type Type uint8

// The types of matrices.
const (
	F32 Type = iota
	BF16
)

// Size is the number of bytes of an element.
func (t Type) Size() int {
	if t == BF16 {
		return 2
	}
	return 4
}

// Matrix is a row-major matrix in device memory, or a part of one.
type Matrix struct {
	At   Ptr
	LD   int // elements from one row to the next
	Type Type
}

// Grid says how many threads a kernel runs in, and with how many bytes of dynamic shared memory.
type Grid struct {
	Blocks  [3]int // 0 counts as 1
	Threads int
	Shared  int
}

// ErrOutOfMemory is in every error that says that the device has not enough memory.
var ErrOutOfMemory = errors.New("out of device memory")

// Info is what a device is.
type Info struct {
	Name        string
	UUID        string
	Compute     [2]int // compute capability: major, minor
	Processors  int    // streaming multiprocessors
	SharedLimit int    // bytes of dynamic shared memory a block may be given
	Memory      int64  // bytes
	Driver      string // the driver's CUDA version and, if known, its own
	BLAS        string // which cuBLAS answers
}

// Device is one GPU.
type Device interface {
	Info() Info
	// Free is how many bytes could be allocated now.
	Free() (int64, error)

	// Alloc takes memory, aligned to 256 bytes; its contents are undefined.
	Alloc(bytes int64) (Ptr, error)
	Release(p Ptr) error
	// Upload copies from the host; src may be written again when it returns.
	Upload(dst Ptr, src []byte) error
	// Download waits for everything before it and copies to the host.
	Download(dst []byte, src Ptr) error
	// Fetch is Download in parts: arrived(n) is called, in ascending order, when dst[:n] is there and the next part on its way.
	Fetch(dst []byte, src Ptr, arrived func(n int)) error
	// Pin locks host memory to its pages until Unpin or Close, so that the device copies from and to it with nothing in between. It has to be from Go's heap.
	Pin(host []byte) error
	Unpin(host []byte) error
	// Copy copies within the device.
	Copy(dst, src Ptr, bytes int64) error
	// Zero writes zeros.
	Zero(dst Ptr, bytes int64) error

	// Launch runs a kernel of package kernels. An argument is a Ptr, int, int32, int64, uint64, uint32 or float32, as the kernel declares it.
	Launch(kernel string, g Grid, args ...any) error
	// Gemm computes C[m,n] = alpha * op(A)[m,k] * op(B)[k,n] + beta * C, added up in f32. transA: A is stored [k,m]; transB: B is stored [n,k].
	// With beta = 0 the old C is not read. A and B are of one type; the same call on the same device gives the same bits.
	Gemm(transA, transB bool, m, n, k int, alpha float32, a, b Matrix, beta float32, c Matrix) error

	// Record calls f and keeps what it launches, instead of running it. Within f nothing is allocated, uploaded from or downloaded.
	Record(f func() error) (Graph, error)
	Sync() error
	Close() error
}

// Graph is recorded work, launched as a whole.
type Graph interface {
	Launch() error
	Release() error
}

// Tuner is a Device whose products can become faster without changing a bit.
type Tuner interface {
	// Tune measures the products that were asked for so far, in other ways that give the same bits. What it found is for those who open the device the
	// next time.
	Tune() (found []Tuned, tables []byte, err error)
}

// Tuned is what Tune found for a product.
type Tuned struct {
	Product   string  `json:"product"`
	Choices   int     `json:"choices"`    // how many ways there are
	OtherBits int     `json:"other_bits"` // those that are faster but have other bits
	First     float64 `json:"first_us"`   // what it took
	Micros    float64 `json:"us"`         // what it takes from now on
}
