//go:build cuda && linux

package driver_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebitengine/purego"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/driver"
)

// products are what a trainer asks for, in small: their results, one behind the other.
func products(t *testing.T, d device.Device) (all []byte) {
	t.Helper()
	const rows, in, out, ld = 24, 40, 16, 56
	x, w, y := alloc(t, d, 2*rows*ld), alloc(t, d, 2*out*ld), alloc(t, d, 4*rows*in)
	for i, p := range []device.Ptr{x, w} {
		data := make([]byte, 2*rows*ld)[:2*[]int{rows, out}[i]*ld]
		for j := range len(data) / 2 {
			binary.LittleEndian.PutUint16(data[2*j:], uint16(0x3f00+(j*(37+i*22)^j>>3)%200|j*7%2<<15))
		}
		check(t, d.Upload(p, data))
	}
	half := func(p device.Ptr, col, ld int) device.Matrix {
		return device.Matrix{At: p + device.Ptr(2*col), LD: ld, Type: device.BF16}
	}
	for _, f := range []func() (int, error){
		func() (int, error) {
			return 2 * rows * out, d.Gemm(false, true, rows, out, in, 1, half(x, 0, ld), half(w, 0, ld), 0, half(y, 0, out))
		},
		func() (int, error) {
			return 2 * rows * out, d.Gemm(false, true, rows, out, in, 1, half(x, 8, ld), half(w, 16, ld), 0, half(y, 0, out))
		}, // aligned otherwise
		func() (int, error) {
			return 2 * rows * in, d.Gemm(false, false, rows, in, out, 1, half(x, 0, ld), half(w, 0, ld), 0, half(y, 0, in))
		},
		func() (int, error) { // dW, in f32
			return 4 * out * in, d.Gemm(true, false, out, in, rows, 0.5, half(x, 0, ld), half(x, 16, ld), 0, device.Matrix{At: y, LD: in})
		},
	} {
		n, err := f()
		check(t, err)
		got := make([]byte, n)
		check(t, d.Download(got, y))
		all = append(all, got...)
	}
	return all
}

func openWith(t *testing.T, c driver.Config) device.Device {
	t.Helper()
	d, err := driver.Open(c, 0)
	check(t, err)
	return d
}

// clock is the stand-in's, which only products through cuBLASLt move on, in microseconds.
func clock(t *testing.T, c driver.Config) func() uint32 {
	t.Helper()
	lib, err := purego.Dlopen(c.CUDA, purego.RTLD_NOW)
	check(t, err)
	var now func() uint32
	purego.RegisterLibFunc(&now, lib, "standin_clock")
	return now
}

// Of the stand-in's algorithms the first takes 4 ms; one takes 1 and adds in another order; one takes 2 and has the first one's bits: that one is taken.
func TestTune(t *testing.T) {
	c := config(t)
	now := clock(t, c)
	took := func(c driver.Config, tune bool) (bits []byte, micros uint32, found []device.Tuned, tables []byte, info device.Info) {
		d := openWith(t, c)
		t.Cleanup(func() { check(t, d.Close()) }) // after its memory has been released
		began := now()
		bits = products(t, d)
		micros = now() - began
		if tune {
			var err error
			found, tables, err = d.(device.Tuner).Tune()
			check(t, err)
		}
		return bits, micros, found, tables, d.Info()
	}
	want, before, _, _, _ := took(c, false)
	got, still, found, tables, _ := took(c, true)
	if !bytes.Equal(got, want) || before != 16000 || still != 16000 {
		t.Errorf("before: other bits, or %d and %d us instead of 16000", before, still)
	}
	if len(found) != 4 {
		t.Errorf("%d products were measured, of 4", len(found))
	}
	for _, f := range found {
		if f.First != 4000 || f.Micros != 2000 || f.OtherBits != 1 || f.Choices != 3 { // the fourth adds in the output's type, which nobody allowed
			t.Errorf("%+v", f)
		}
	}
	c.Tuned = tables
	got, after, _, _, info := took(c, false)
	if !bytes.Equal(got, want) || after != 8000 || !strings.HasSuffix(info.BLAS, ", 4 products tuned") {
		t.Errorf("tuned: other bits, or %d us instead of 8000, or %q", after, info.BLAS)
	}

	c.Tuned = bytes.Replace(tables, []byte("2"), []byte("1"), 1)
	got, after, _, _, info = took(c, false)
	if !bytes.Equal(got, want) || after != before || !strings.Contains(info.BLAS, "damaged") {
		t.Errorf("a damaged table: other bits, or %d us, or %q", after, info.BLAS)
	}
}

// Without cuBLASLt products go through cuBLAS, and nothing can be tuned.
func TestWithoutLt(t *testing.T) {
	c := config(t)
	with := openWith(t, c)
	t.Cleanup(func() { check(t, with.Close()) })
	want := products(t, with)
	folder := t.TempDir()
	check(t, os.Symlink(c.BLAS, filepath.Join(folder, "libcublas.so.12")))
	now := clock(t, c)
	c.BLAS = filepath.Join(folder, "libcublas.so.12")
	d := openWith(t, c)
	t.Cleanup(func() { check(t, d.Close()) })
	if i := d.Info(); !strings.HasSuffix(i.BLAS, ", without cuBLASLt") {
		t.Errorf("%q", i.BLAS)
	}
	began := now()
	if !bytes.Equal(products(t, d), want) || now() != began {
		t.Error("other bits than cuBLASLt's first choice has here, or it was asked")
	}
	if _, _, err := d.(device.Tuner).Tune(); err == nil {
		t.Error("tuned without cuBLASLt")
	}
}
