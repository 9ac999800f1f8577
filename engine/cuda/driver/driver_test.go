//go:build cuda && linux

package driver_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/driver"
	"lorad/engine/cuda/kernels"
	"lorad/engine/cuda/standin"
)

func config(t *testing.T) driver.Config {
	t.Helper()
	dir, err := standin.Build(false)
	if errors.Is(err, standin.ErrNoCompiler) {
		t.Skip("the stand-in GPU needs g++")
	}
	if err != nil {
		t.Fatal(err)
	}
	c := driver.Config{CUDA: filepath.Join(dir, "libcuda.so.1"), BLAS: filepath.Join(dir, "libcublas.so.12")}
	for _, m := range kernels.Modules() {
		c.PTX = append(c.PTX, m.PTX)
	}
	return c
}

// open gives the stand-in GPU through everything that the program goes through on a real one.
func open(t *testing.T) device.Device {
	t.Helper()
	d, err := driver.Open(config(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func alloc(t *testing.T, d device.Device, bytes int64) device.Ptr {
	t.Helper()
	p, err := d.Alloc(bytes)
	check(t, err)
	t.Cleanup(func() { check(t, d.Release(p)) })
	return p
}

func bytesOf(f []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), 4*len(f))
}

func put(t *testing.T, d device.Device, f []float32) device.Ptr {
	t.Helper()
	p := alloc(t, d, int64(4*len(f)))
	check(t, d.Upload(p, bytesOf(f)))
	return p
}

func get(t *testing.T, d device.Device, p device.Ptr, n int) []float32 {
	t.Helper()
	f := make([]float32, n)
	check(t, d.Download(bytesOf(f), p))
	return f
}

func TestLook(t *testing.T) {
	f := driver.Look(config(t))
	if f.DriverErr != nil || f.BLASErr != nil || len(f.Devices) != 1 {
		t.Fatalf("%+v", f)
	}
	if i := f.Devices[0]; i.Name == "" || i.Compute != [2]int{8, 0} || i.Memory <= 0 || i.SharedLimit <= 48<<10 || !strings.HasPrefix(i.UUID, "GPU-") {
		t.Errorf("%+v", i)
	}
	if f.Driver != "CUDA 12.2" || f.BLAS != "cuBLAS 12.2.5 (libcublas.so.12), cuBLASLt 12.2.5" {
		t.Errorf("driver %q, BLAS %q", f.Driver, f.BLAS)
	}
	if _, err := driver.Open(config(t), 7); err == nil || !strings.Contains(err.Error(), "device 7") {
		t.Errorf("a device that is not there: %v", err)
	}
	if _, err := driver.Open(driver.Config{CUDA: "libother.so"}, 0); err == nil {
		t.Error("a second driver in one process")
	}
}

// Copies longer than both pinned buffers, with an end that is no multiple of anything; the source is overwritten at once, as the contract allows.
func TestCopies(t *testing.T) {
	d := open(t)
	src := make([]byte, 20<<20+5)
	for i := range src {
		src[i] = byte(i*7 + i>>9)
	}
	want := append([]byte(nil), src...)
	p, q := alloc(t, d, int64(len(src))), alloc(t, d, int64(len(src)))
	check(t, d.Upload(p, src))
	clear(src)
	check(t, d.Copy(q, p, int64(len(src))))
	check(t, d.Zero(q+3, 4))
	clear(want[3:7])
	check(t, d.Download(src, q))
	if string(src) != string(want) {
		t.Error("not what was uploaded")
	}
	for _, n := range []int{0, 1, 8 << 20, 16 << 20} {
		got := make([]byte, n)
		check(t, d.Download(got, q))
		if string(got) != string(want[:n]) {
			t.Errorf("%d bytes: not what was uploaded", n)
		}
	}
}

// Memory of the host that is pinned is copied from and to as it lies, in parts that are there when it is said so.
func TestPinned(t *testing.T) {
	d := open(t)
	const n = 20<<20 + 13
	host, want := make([]byte, n), make([]byte, n)
	for i := range want {
		want[i] = byte(i*i>>8 + i)
	}
	p := alloc(t, d, n)
	for _, pinned := range []bool{true, true, false} { // the second time it is already
		if pinned {
			check(t, d.Pin(host))
		} else {
			check(t, d.Unpin(host))
		}
		copy(host, want)
		check(t, d.Upload(p, host))
		clear(host) // the copy has been made
		last := 0
		check(t, d.Fetch(host, p, func(at int) {
			if at <= last || !bytes.Equal(host[last:at], want[last:at]) {
				t.Errorf("pinned %t: %d bytes are not there when it is said so, after %d", pinned, at, last)
			}
			last = at
		}))
		if last != n {
			t.Errorf("pinned %t: %d bytes of %d have arrived", pinned, last, n)
		}
		clear(host)
		check(t, d.Download(host[5:9<<20], p+5)) // a part of what is pinned
		if !bytes.Equal(host[5:9<<20], want[5:9<<20]) || host[4] != 0 || host[9<<20] != 0 {
			t.Errorf("pinned %t: a part is not what was uploaded", pinned)
		}
	}
	brief, err := driver.Open(config(t), 0)
	check(t, err)
	check(t, brief.Pin(host[:1<<20])) // is given back when the device is
	check(t, brief.Close())
	check(t, d.Pin(host[:1<<20]))
	check(t, d.Unpin(want)) // which was never pinned
	check(t, d.Pin(nil))
	check(t, d.Fetch(nil, p, nil))
	other := open(t)
	if err := other.Pin(host[:1<<20]); err == nil {
		t.Error("the driver pins memory twice: is it the stand-in's?")
	}
}

func TestLaunch(t *testing.T) {
	d := open(t)
	const rows, cols = 3, 5
	x := make([]float32, rows*cols)
	for i := range x {
		x[i] = float32(i) + 0.25
	}
	p, y := put(t, d, x), alloc(t, d, 2*rows*(cols+1))
	check(t, d.Zero(y, 2*rows*(cols+1)))
	check(t, d.Launch("cast_bf16", device.Grid{Blocks: [3]int{1}, Threads: 64}, p, cols, y, cols+1, rows, int32(cols), float32(2)))
	got := make([]byte, 2*rows*(cols+1))
	check(t, d.Download(got, y))
	for i := range rows {
		for j := range cols {
			bits := binary.LittleEndian.Uint16(got[2*(i*(cols+1)+j):])
			if v := math.Float32frombits(uint32(bits) << 16); v != 2*x[i*cols+j] {
				t.Errorf("[%d,%d] = %v, want %v", i, j, v, 2*x[i*cols+j])
			}
		}
	}
	for name, err := range map[string]error{
		"no such kernel":   d.Launch("nobody", device.Grid{Threads: 32}),
		"no argument":      d.Launch("fill", device.Grid{Threads: 32}, "text"),
		"too many threads": d.Launch("fill", device.Grid{Threads: 4096}, p, float32(0), int64(1)),
		"too much shared":  d.Launch("fill", device.Grid{Threads: 32, Shared: 1 << 20}, p, float32(0), int64(1)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	check(t, d.Launch("fill", device.Grid{Threads: 32, Shared: 64 << 10}, p, float32(3), int64(1)))
	if v := get(t, d, p, 1)[0]; v != 3 {
		t.Errorf("with 64 KiB of shared memory: %v", v)
	}
}

func TestGemm(t *testing.T) {
	d := open(t)
	const m, n, k, pad = 3, 4, 5, 2
	// matrix is stored transposed if trans says so; its elements are asked for as if it were not.
	matrix := func(rows, cols int, trans bool) (device.Matrix, func(i, j int) float32) {
		if trans {
			rows, cols = cols, rows
		}
		f := make([]float32, rows*(cols+pad))
		for i := range f {
			f[i] = float32(i%7) - 2
		}
		return device.Matrix{At: put(t, d, f), LD: cols + pad}, func(i, j int) float32 {
			if trans {
				i, j = j, i
			}
			return f[i*(cols+pad)+j]
		}
	}
	for _, trans := range [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
		a, at := matrix(m, k, trans[0])
		b, bt := matrix(k, n, trans[1])
		c, ct := matrix(m, n, false)
		check(t, d.Gemm(trans[0], trans[1], m, n, k, 2, a, b, 0.5, c))
		got := get(t, d, c.At, m*(n+pad))
		for i := range m {
			for j := range n {
				want := 0.5 * ct(i, j)
				for l := range k {
					want += 2 * at(i, l) * bt(l, j)
				}
				if v := got[i*(n+pad)+j]; v != want {
					t.Fatalf("trans %v: C[%d,%d] = %v, want %v", trans, i, j, v, want)
				}
			}
		}
	}
	if err := d.Gemm(false, false, m, n, k, 1, device.Matrix{At: 1 << 40, LD: k}, device.Matrix{At: 1 << 40, LD: n}, 0, device.Matrix{At: 1 << 40, LD: n}); err == nil {
		t.Error("a product of nothing")
	}
}

// A recording runs nothing, then runs as often as it is launched; what may not be in it is refused, and the device goes on.
func TestRecord(t *testing.T) {
	d := open(t)
	p := put(t, d, []float32{1, 2})
	work := func() error {
		one := device.Matrix{At: p, LD: 1}
		return errors.Join(d.Gemm(false, false, 1, 1, 1, 1, one, one, 1, one), d.Copy(p+4, p, 4)) // x*x + x
	}
	g, err := d.Record(work)
	check(t, err)
	if v := get(t, d, p, 2); v[0] != 1 || v[1] != 2 {
		t.Errorf("recording ran: %v", v)
	}
	check(t, g.Launch())
	check(t, g.Launch())
	if v := get(t, d, p, 2); v[0] != 6 || v[1] != 6 {
		t.Errorf("launched twice: %v", v)
	}
	check(t, g.Release())
	check(t, g.Release())

	_, err = d.Record(func() error { _, err := d.Alloc(16); return err })
	if err == nil || !strings.Contains(err.Error(), "recording") {
		t.Errorf("an allocation within a recording: %v", err)
	}
	mine := errors.New("mine")
	if _, err = d.Record(func() error { return mine }); !errors.Is(err, mine) {
		t.Errorf("the caller's error: %v", err)
	}
	check(t, work())
	if v := get(t, d, p, 1); v[0] != 42 {
		t.Errorf("after all that: %v", v)
	}
}

func TestOutOfMemory(t *testing.T) {
	d := open(t)
	free, err := d.Free()
	check(t, err)
	_, err = d.Alloc(free + 1)
	if !errors.Is(err, device.ErrOutOfMemory) || !strings.Contains(err.Error(), "bytes are free") {
		t.Errorf("%v", err)
	}
	if again, err := d.Free(); err != nil || again != free {
		t.Errorf("free: %d, then %d, %v", free, again, err)
	}
}

// The context belongs to the device's own thread, so callers may come on any.
func TestCallersOnAnyThread(t *testing.T) {
	d := open(t)
	p := alloc(t, d, 4*64)
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			runtime.LockOSThread()
			if err := d.Launch("fill", device.Grid{Threads: 32}, p+device.Ptr(4*i), float32(i), int64(1)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, v := range get(t, d, p, 64) {
		if v != float32(i) {
			t.Errorf("%d: %v", i, v)
		}
	}
}

// What is closed gives everything back, and can be opened again.
func TestCloseAndOpenAgain(t *testing.T) {
	c := config(t)
	var free [2]int64
	for i := range free {
		d, err := driver.Open(c, 0)
		check(t, err)
		free[i], err = d.Free()
		check(t, err)
		check(t, d.Close())
		if err := d.Sync(); err == nil {
			t.Error("a closed device waits")
		}
		check(t, d.Close())
	}
	if free[0] != free[1] {
		t.Errorf("free: %d, then %d", free[0], free[1])
	}
}
