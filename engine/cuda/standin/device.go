package standin

import (
	"fmt"
	"runtime"
	"unsafe"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/kernels"
)

// Options of Open.
type Options struct {
	Order  uint32 // of threads and blocks: 0 ascending, 1 descending, else the seed of a shuffle; odd: each warp as far ahead as it can be
	Memory int64  // bytes of the device; 0 = 4 GiB
	Dir    string // of the libraries; "" = what Build makes
}

// Device is the stand-in GPU as engine/cuda wants it.
type Device struct {
	api     *api
	context uintptr
	stream  uintptr
	blas    uintptr
	modules []uintptr
	kernels map[string]uintptr
	shared  map[string]int // dynamic shared memory that a kernel has been allowed
}

// Open gives a device with all kernels loaded. Its goroutine keeps its thread until Close.
func Open(opt Options) (*Device, error) { return open(opt, kernels.Modules()) }

func open(opt Options, modules []kernels.Module) (*Device, error) {
	dir := opt.Dir
	if dir == "" {
		built, err := Build(false)
		if err != nil {
			return nil, err
		}
		dir = built
	}
	a, err := load(dir)
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	d := &Device{api: a, kernels: map[string]uintptr{}, shared: map[string]int{}}
	a.order(opt.Order)
	a.memory(uint64(max(opt.Memory, 0)))
	if opt.Memory == 0 {
		a.memory(4 << 30)
	}
	if err := d.start(); err != nil {
		return nil, err
	}
	for _, m := range modules {
		if err := d.load(m.PTX, m.Kernels); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *Device) start() error {
	const nonBlocking = 1
	for _, call := range []struct {
		name string
		f    func() int32
	}{
		{"init", func() int32 { return d.api.init(0) }},
		{"retain context", func() int32 { return d.api.retain(&d.context, 0) }},
		{"set context", func() int32 { return d.api.setCurrent(d.context) }},
		{"create stream", func() int32 { return d.api.streamCreate(&d.stream, nonBlocking) }},
		{"create cuBLAS handle", func() int32 { return d.api.blasCreate(&d.blas) }},
		{"set cuBLAS stream", func() int32 { return d.api.blasStream(d.blas, d.stream) }},
	} {
		if err := d.api.check(call.name, call.f()); err != nil {
			return err
		}
	}
	return nil
}

// here makes the device this thread's, for a call: whoever uses it may do so from goroutine to goroutine, though not from two at once.
func (d *Device) here() (done func()) {
	runtime.LockOSThread()
	d.api.setCurrent(d.context)
	return runtime.UnlockOSThread
}

// load makes a module's kernels launchable.
func (d *Device) load(ptx string, names []string) error {
	text := append([]byte(ptx), 0)
	var m uintptr
	if err := d.api.check("load module", d.api.moduleLoad(&m, unsafe.Pointer(&text[0]))); err != nil {
		return err
	}
	d.modules = append(d.modules, m)
	for _, name := range names {
		var f uintptr
		if err := d.api.check("find kernel "+name, d.api.getFunction(&f, m, name)); err != nil {
			return err
		}
		d.kernels[name] = f
	}
	return nil
}

// Info describes the stand-in.
func (d *Device) Info() device.Info {
	var free, total uint64
	d.api.memInfo(&free, &total)
	return device.Info{Name: "stand-in GPU", Compute: [2]int{8, 0}, Processors: 4, SharedLimit: 227 << 10, Memory: int64(total), Driver: "stand-in", BLAS: "stand-in"}
}

// Free is what has not been allocated.
func (d *Device) Free() (int64, error) {
	defer d.here()()
	var free, total uint64
	err := d.api.check("memory", d.api.memInfo(&free, &total))
	return int64(free), err
}

// Alloc takes memory that is NaN.
func (d *Device) Alloc(bytes int64) (device.Ptr, error) {
	defer d.here()()
	var p uint64
	err := d.api.check(fmt.Sprintf("allocate %d bytes", bytes), d.api.alloc(&p, uint64(bytes)))
	return device.Ptr(p), err
}

// Release gives memory back.
func (d *Device) Release(p device.Ptr) error {
	defer d.here()()
	return d.api.check("free", d.api.free(uint64(p)))
}

// Upload waits: the stand-in copies when somebody waits, and src may change before.
func (d *Device) Upload(dst device.Ptr, src []byte) error {
	defer d.here()()
	if len(src) == 0 {
		return nil
	}
	if err := d.api.check("upload", d.api.upload(uint64(dst), unsafe.Pointer(&src[0]), uint64(len(src)), d.stream)); err != nil {
		return err
	}
	defer runtime.KeepAlive(src)
	return d.Sync()
}

// Download waits too.
func (d *Device) Download(dst []byte, src device.Ptr) error {
	defer d.here()()
	if len(dst) == 0 {
		return nil
	}
	if err := d.api.check("download", d.api.download(unsafe.Pointer(&dst[0]), uint64(src), uint64(len(dst)), d.stream)); err != nil {
		return err
	}
	defer runtime.KeepAlive(dst)
	return d.Sync()
}

// Fetch brings parts of a kilobyte.
func (d *Device) Fetch(dst []byte, src device.Ptr, arrived func(n int)) error {
	const part = 1 << 10
	for at := 0; at < len(dst); {
		n := min(part, len(dst)-at)
		if err := d.Download(dst[at:at+n], src+device.Ptr(at)); err != nil {
			return err
		}
		at += n
		arrived(at)
	}
	return nil
}

// Pin does nothing: to the stand-in all memory is alike.
func (d *Device) Pin([]byte) error { return nil }

// Unpin does nothing.
func (d *Device) Unpin([]byte) error { return nil }

// Copy copies within the device.
func (d *Device) Copy(dst, src device.Ptr, bytes int64) error {
	defer d.here()()
	return d.api.check("copy", d.api.copy(uint64(dst), uint64(src), uint64(bytes), d.stream))
}

// Zero writes zeros.
func (d *Device) Zero(dst device.Ptr, bytes int64) error {
	defer d.here()()
	return d.api.check("zero", d.api.set(uint64(dst), 0, uint64(bytes), d.stream))
}

// Launch puts a kernel on the stream.
func (d *Device) Launch(kernel string, g device.Grid, args ...any) error {
	defer d.here()()
	f, ok := d.kernels[kernel]
	if !ok {
		return fmt.Errorf("launch %s: no such kernel", kernel)
	}
	if err := d.allow(kernel, f, g.Shared); err != nil {
		return err
	}
	slots, pointers := make([]uint64, len(args)), make([]unsafe.Pointer, len(args)+1)
	for i, a := range args {
		s, err := slot(a)
		if err != nil {
			return fmt.Errorf("launch %s: argument %d: %w", kernel, i, err)
		}
		slots[i], pointers[i] = s, unsafe.Pointer(&slots[i])
	}
	var pins runtime.Pinner
	defer pins.Unpin()
	if len(slots) > 0 {
		pins.Pin(&slots[0])
	}
	code := d.api.launch(f, blocks(g, 0), blocks(g, 1), blocks(g, 2), uint32(g.Threads), 1, 1, uint32(g.Shared), d.stream, unsafe.Pointer(&pointers[0]), nil)
	return d.api.check("launch "+kernel, code)
}

// allow asks for more dynamic shared memory than any kernel may have.
func (d *Device) allow(kernel string, f uintptr, bytes int) error {
	const maxDynamicShared, unasked = 8, 48 << 10
	if bytes <= max(unasked, d.shared[kernel]) {
		return nil
	}
	d.shared[kernel] = bytes
	return d.api.check("shared memory of "+kernel, d.api.setFunction(f, maxDynamicShared, int32(bytes)))
}

func blocks(g device.Grid, i int) uint32 { return uint32(max(g.Blocks[i], 1)) }

// Gemm turns the row-major product into cuBLAS's column-major one: C^T = op(B)^T op(A)^T.
func (d *Device) Gemm(transA, transB bool, m, n, k int, alpha float32, a, b device.Matrix, beta float32, c device.Matrix) error {
	defer d.here()()
	const f32 = 68 // CUBLAS_COMPUTE_32F
	code := d.api.gemm(d.blas, op(transB), op(transA), int32(n), int32(m), int32(k), &alpha, uint64(b.At), cudaType(b), int32(b.LD),
		uint64(a.At), cudaType(a), int32(a.LD), &beta, uint64(c.At), cudaType(c), int32(c.LD), f32, -1)
	return d.api.check(fmt.Sprintf("product %dx%dx%d", m, n, k), code)
}

func op(trans bool) int32 {
	if trans {
		return 1
	}
	return 0
}

func cudaType(m device.Matrix) int32 {
	if m.Type == device.BF16 {
		return 14
	}
	return 0
}

// Sync runs everything.
func (d *Device) Sync() error {
	defer d.here()()
	return d.api.check("synchronise", d.api.streamSync(d.stream))
}

// Record keeps what f launches.
func (d *Device) Record(f func() error) (device.Graph, error) {
	defer d.here()()
	const threadLocal = 1
	if err := d.api.check("begin recording", d.api.beginCapture(d.stream, threadLocal)); err != nil {
		return nil, err
	}
	err := f()
	var graph, exec uintptr
	if end := d.api.check("end recording", d.api.endCapture(d.stream, &graph)); err == nil {
		err = end
	}
	if err != nil {
		return nil, err
	}
	defer d.api.graphDestroy(graph)
	if err := d.api.check("instantiate graph", d.api.instantiate(&exec, graph, 0)); err != nil {
		return nil, err
	}
	return &recorded{d, exec}, nil
}

type recorded struct {
	d    *Device
	exec uintptr
}

func (r *recorded) Launch() error {
	defer r.d.here()()
	return r.d.api.check("launch graph", r.d.api.graphLaunch(r.exec, r.d.stream))
}

func (r *recorded) Release() error {
	return r.d.api.check("release graph", r.d.api.execDestroy(r.exec))
}

// Close waits and gives everything back, memory too. A second Close does nothing.
func (d *Device) Close() error {
	if d.stream == 0 {
		return nil
	}
	err := d.Sync()
	d.api.blasDestroy(d.blas)
	d.api.streamDestroy(d.stream)
	for _, m := range d.modules {
		d.api.moduleUnload(m)
	}
	d.api.release(0)
	d.stream = 0
	runtime.UnlockOSThread()
	return err
}
