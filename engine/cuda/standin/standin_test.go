package standin

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/kernels"
)

var broken = []string{"reversed", "missing_barrier", "divergent_barrier", "absent_thread", "absent_lane", "unnamed_lane", "uninitialised", "beyond_allocation",
	"beyond_shared", "halves", "increment", "read_beyond"}

var sanitize = flag.Bool("sanitize", false, "this process has AddressSanitizer's library loaded")

// start is a stand-in with the kernels of testdata/broken.cu.
func start(t *testing.T, opt Options) *Device {
	t.Helper()
	opt.Dir = libraries(t, *sanitize)
	ptx := fakePTX(broken, ".u64", ".u32")
	d, err := open(opt, []kernels.Module{{Name: "broken", PTX: ptx, Kernels: broken}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() }) // a failed kernel's error comes again
	return d
}

func libraries(t *testing.T, sanitize bool) string {
	t.Helper()
	text, err := os.ReadFile("testdata/broken.cu")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := build(sanitize, map[string]string{"broken": string(text)})
	if errors.Is(err, ErrNoCompiler) {
		t.Skip("the stand-in GPU is built with g++, which is not here")
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// fakePTX is as much of PTX as the stand-in reads.
func fakePTX(names []string, types ...string) string {
	text := ".version 7.8\n"
	for _, name := range names {
		text += ".visible .entry " + name + "("
		for i, typ := range types {
			text += fmt.Sprintf("\n.param %s p%d,", typ, i)
		}
		text += "\n)\n{}\n"
	}
	return text
}

// numbers are 0, 1, 2, ... in device memory.
func numbers(t *testing.T, d *Device, n int) device.Ptr {
	t.Helper()
	p, err := d.Alloc(int64(4 * n))
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i)
	}
	if err := d.Upload(p, unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*n)); err != nil {
		t.Fatal(err)
	}
	return p
}

func read(t *testing.T, d *Device, p device.Ptr, n int) []float32 {
	t.Helper()
	x := make([]float32, n)
	if err := d.Download(unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*n), p); err != nil {
		t.Fatal(err)
	}
	return x
}

// The kernels that end with an error, and the words that must be in it.
func TestMistakesAreErrors(t *testing.T) {
	for kernel, words := range map[string][]string{
		"divergent_barrier": {"divergence", "broken.cu:16 (barrier)", "broken.cu:18 (barrier)"},
		"absent_thread":     {"divergence", "(barrier)", "thread 63 has returned"},
		"absent_lane":       {"divergence", "(warp)", "thread 63 has returned"},
		"unnamed_lane":      {"its mask does not name it"},
		"beyond_allocation": {"outside an allocation of 256 bytes"},
		"beyond_shared":     {"beyond its dynamic shared memory"},
	} {
		for _, order := range []uint32{0, 1, 99} {
			d := start(t, Options{Order: order})
			p := numbers(t, d, 64)
			if err := d.Launch(kernel, device.Grid{Threads: 64}, p, 64); err != nil {
				t.Fatal(err)
			}
			err := d.Sync()
			for _, w := range words {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%s, order %d: %v; want %q", kernel, order, err, w)
				}
			}
			if again := d.Launch("increment", device.Grid{Threads: 64}, p, 64); again == nil {
				t.Errorf("%s: a kernel can be launched after one failed", kernel)
			}
			d.Close()
		}
	}
}

// Without the barrier some order gives NaN; with it none does.
func TestOrdersShowAMissingBarrier(t *testing.T) {
	wrong := map[string]int{}
	for _, kernel := range []string{"reversed", "missing_barrier"} {
		for _, order := range []uint32{0, 1, 99} {
			d := start(t, Options{Order: order})
			p := numbers(t, d, 64)
			if err := d.Launch(kernel, device.Grid{Threads: 64}, p, 64); err != nil {
				t.Fatal(err)
			}
			for i, v := range read(t, d, p, 64) {
				if v != float32(63-i) {
					wrong[kernel]++
				}
			}
			d.Close()
		}
	}
	if wrong["reversed"] != 0 || wrong["missing_barrier"] == 0 {
		t.Errorf("wrong elements: %v", wrong)
	}
}

func TestSharedMemoryHoldsNaN(t *testing.T) {
	d := start(t, Options{})
	p := numbers(t, d, 64)
	for _, kernel := range []string{"reversed", "uninitialised"} { // the first leaves numbers in its own shared memory
		if err := d.Launch(kernel, device.Grid{Threads: 64}, p, 64); err != nil {
			t.Fatal(err)
		}
	}
	for i, v := range read(t, d, p, 64) {
		if v == v {
			t.Fatalf("element %d is %g", i, v)
		}
	}
	fresh, err := d.Alloc(64)
	if err != nil {
		t.Fatal(err)
	}
	if v := read(t, d, fresh, 1)[0]; v == v {
		t.Errorf("fresh memory holds %g", v)
	}
}

func TestExchangesOfSomeLanes(t *testing.T) {
	for _, order := range []uint32{0, 1, 99} {
		d := start(t, Options{Order: order})
		p := numbers(t, d, 32)
		if err := d.Launch("halves", device.Grid{Threads: 32}, p, 32); err != nil {
			t.Fatal(err)
		}
		for i, v := range read(t, d, p, 32) {
			want := float32(120 + 16 + 3)
			if i >= 16 {
				want = float32(i + 16 + 3)
			}
			if v != want {
				t.Errorf("order %d: lane %d has %g, want %g", order, i, v, want)
			}
		}
		d.Close()
	}
}

func TestGraphs(t *testing.T) {
	d := start(t, Options{})
	p := numbers(t, d, 100)
	n := 100
	g, err := d.Record(func() error {
		err := d.Launch("increment", device.Grid{Blocks: [3]int{2}, Threads: 32}, p, n)
		n = 1 // arguments are those of the recording
		return errors.Join(err, d.Gemm(false, false, 1, 1, 1, 1, f32(p), f32(p), 1, f32(p)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := read(t, d, p, 1)[0]; v != 0 {
		t.Fatalf("recording ran: element 0 is %g", v)
	}
	for _, want := range []float32{2, 12} { // x+1, then x*x + x
		if err := g.Launch(); err != nil {
			t.Fatal(err)
		}
		if x := read(t, d, p, 100); x[0] != want || x[99] != 99+map[float32]float32{2: 1, 12: 2}[want] {
			t.Fatalf("elements 0 and 99 are %g and %g, want %g first", x[0], x[99], want)
		}
	}
	if err := g.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Record(func() error { return d.Sync() }); err == nil {
		t.Error("a recording may wait")
	}
	if _, err := d.Record(func() error { _, err := d.Alloc(4); return err }); err == nil {
		t.Error("a recording may allocate")
	}
	if err := d.Launch("increment", device.Grid{Threads: 32}, p, 100); err != nil {
		t.Errorf("after a broken recording: %v", err)
	}
}

func f32(p device.Ptr) device.Matrix { return device.Matrix{At: p, LD: 1, Type: device.F32} }

// A copy reads its source when somebody waits, as late as a GPU might.
func TestCopiesAreLate(t *testing.T) {
	d := start(t, Options{})
	p := numbers(t, d, 1)
	src := []float32{1}
	if err := d.api.check("upload", d.api.upload(uint64(p), unsafe.Pointer(&src[0]), 4, d.stream)); err != nil {
		t.Fatal(err)
	}
	src[0] = 2
	if v := read(t, d, p, 1)[0]; v != 2 {
		t.Errorf("the copy read %g before anybody waited", v)
	}
}

func TestRefusals(t *testing.T) {
	d := start(t, Options{Memory: 1 << 20})
	p := numbers(t, d, 64)
	if _, err := d.Alloc(1 << 20); !errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("more than there is: %v", err)
	}
	if free, err := d.Free(); err != nil || free != 1<<20-256 {
		t.Errorf("free: %d, %v", free, err)
	}
	for what, err := range map[string]error{
		"a copy beyond an allocation":      d.Copy(p, p+4, 256),
		"an upload beyond an allocation":   d.Upload(p+4, make([]byte, 256)),
		"a product beyond an allocation":   d.Gemm(false, false, 9, 8, 8, 1, device.Matrix{At: p, LD: 8}, device.Matrix{At: p, LD: 8}, 0, device.Matrix{At: p, LD: 8}),
		"too many threads":                 d.Launch("increment", device.Grid{Threads: 1025}, p, 1),
		"too much shared memory":           d.Launch("increment", device.Grid{Threads: 1, Shared: 300 << 10}, p, 1),
		"an argument of no type":           d.Launch("increment", device.Grid{Threads: 1}, p, 1.5),
		"a kernel that is not there":       d.Launch("nothing", device.Grid{Threads: 1}),
		"PTX of another source":            d.load(fakePTX([]string{"increment"}, ".u64", ".u64"), []string{"increment"}),
		"PTX that lacks the kernel":        d.load(fakePTX(nil), []string{"increment"}),
		"PTX of a kernel that is not here": d.load(fakePTX([]string{"other"}, ".u64"), []string{"other"}),
		"a second release":                 errors.Join(d.Release(p), d.Release(p)),
	} {
		if err == nil {
			t.Errorf("%s is no error", what)
		}
	}
}

// Row-major callers: every combination of transpositions and types, with gaps between rows that stay.
func TestGemmRows(t *testing.T) {
	d := start(t, Options{})
	const m, n, k, ld = 3, 5, 9, 11
	for mode := range 8 {
		transA, transB, beta := mode&1 != 0, mode&2 != 0, float32(mode>>2)
		a, b, c := numbers(t, d, ld*ld), numbers(t, d, ld*ld), numbers(t, d, ld*ld)
		at := func(p device.Ptr) device.Matrix { return device.Matrix{At: p, LD: ld, Type: device.F32} }
		if err := d.Gemm(transA, transB, m, n, k, 0.5, at(a), at(b), beta, at(c)); err != nil {
			t.Fatal(err)
		}
		for i, got := range read(t, d, c, ld*ld) {
			row, col, want := i/ld, i%ld, float64(i)
			if row < m && col < n {
				want *= float64(beta)
				for l := range k {
					want += 0.5 * float64(index(transA, row, l, ld)*index(transB, l, col, ld))
				}
			}
			if math.Abs(float64(got)-want) > 1e-6*want {
				t.Fatalf("transposed %v, %v, beta %g: element %d,%d is %g, want %g", transA, transB, beta, row, col, got, want)
			}
		}
	}
}

// index is the element of numbers that a matrix has in a row and a column.
func index(trans bool, row, col, ld int) int {
	if trans {
		row, col = col, row
	}
	return row*ld + col
}

// A read outside an allocation changes nothing that could be compared; AddressSanitizer ends the process, so another one makes it.
func TestAddressSanitizerSeesReads(t *testing.T) {
	if *sanitize {
		d := start(t, Options{})
		p := numbers(t, d, 63)
		if err := errors.Join(d.Launch("read_beyond", device.Grid{Threads: 63}, p, 63), d.Sync()); err != nil {
			t.Fatal(err)
		}
		return
	}
	libraries(t, true)
	library, err := exec.Command("g++", "-print-file-name=libasan.so").Output()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestAddressSanitizerSeesReads$", "-sanitize")
	child.Env = append(os.Environ(), "LD_PRELOAD="+strings.TrimSpace(string(library)), "ASAN_OPTIONS=detect_leaks=0:handle_segv=0")
	out, err := child.CombinedOutput()
	if text := string(out); err == nil || !strings.Contains(text, "AddressSanitizer: use-after-poison") || !strings.Contains(text, "broken.cu:44") {
		t.Errorf("%v, want AddressSanitizer's report of broken.cu:44:\n%s", err, text)
	}
}
