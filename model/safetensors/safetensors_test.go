package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"strings"
	"testing"

	"lorad/model/safetensors"
)

func open(t testing.TB, b []byte) *safetensors.File {
	t.Helper()
	f, err := safetensors.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t testing.TB, f *safetensors.File, name string) safetensors.Tensor {
	t.Helper()
	data, shape, err := f.F32(name)
	if err != nil {
		t.Fatal(err)
	}
	return safetensors.Tensor{Name: name, Shape: shape, Data: data}
}

func testdata(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func equalBits(a, b []float32) bool {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// The file the reference library wrote comes out again byte for byte, from tensors in any order.
func TestWriteIsTheReferencesBytes(t *testing.T) {
	want := testdata(t, "f32.safetensors")
	f := open(t, want)
	names := f.Names()
	var tensors []safetensors.Tensor
	for i := range names {
		tensors = append(tensors, read(t, f, names[len(names)-1-i]))
	}
	var got bytes.Buffer
	if err := safetensors.Write(&got, tensors, f.Metadata); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%q\nwant\n%q", got.Bytes(), want)
	}
}

func TestWideningIsTorchs(t *testing.T) {
	f := open(t, testdata(t, "mixed.safetensors"))
	for _, d := range []string{"f16", "bf16"} {
		got, want := read(t, f, d), read(t, f, d+"_as_f32")
		if !equalBits(got.Data, want.Data) {
			t.Errorf("%s: got %v, want %v", d, got.Data, want.Data)
		}
	}
	half := open(t, testdata(t, "half.safetensors"))
	got, want := read(t, half, "half"), read(t, half, "widened")
	for i := range want.Data {
		nan := got.Data[i] != got.Data[i] && want.Data[i] != want.Data[i]
		if !nan && math.Float32bits(got.Data[i]) != math.Float32bits(want.Data[i]) {
			t.Fatalf("half %d: got %v, want %v", i, got.Data[i], want.Data[i])
		}
	}
	if _, _, err := f.F32("ids"); err == nil || !strings.Contains(err.Error(), "I64") {
		t.Errorf("integers read as numbers: %v", err)
	}
	if _, _, err := f.F32("absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent tensor: %v", err)
	}
}

func TestBF16RoundsAsTorch(t *testing.T) {
	f := open(t, testdata(t, "mixed.safetensors"))
	src := read(t, f, "f32")
	src.DType = safetensors.BF16
	var b bytes.Buffer
	if err := safetensors.Write(&b, []safetensors.Tensor{src}, nil); err != nil {
		t.Fatal(err)
	}
	got, want := read(t, open(t, b.Bytes()), "f32"), read(t, f, "bf16_as_f32")
	if !equalBits(got.Data, want.Data) {
		t.Errorf("got %v, want %v", got.Data, want.Data)
	}
	for _, c := range []struct {
		in   uint32
		want uint16
	}{{0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81}, {0x7f7fffff, 0x7f80}, {0xffc00001, 0x7fc0}, {0x7f800001, 0x7fc0}} {
		if got := safetensors.ToBF16(math.Float32frombits(c.in)); got != c.want {
			t.Errorf("ToBF16(%#x) = %#x, want %#x", c.in, got, c.want)
		}
	}
}

func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

var malformed = []struct {
	name, want string
	bytes      []byte
}{
	{"empty", "0 bytes", nil},
	{"huge length", "over the limit", append(bytes.Repeat([]byte{0xff}, 8), '{')},
	{"length past the end", "cut short", file("{}", 0)[:9]},
	{"no brace", "begin with", file(` {}`, 0)},
	{"not JSON", "not JSON", file(`{"a":`, 0)},
	{"text after", "closing", file(`{} x`, 0)},
	{"name twice", "given twice", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2)},
	{"metadata twice", "given twice", file(`{"__metadata__":{},"__metadata__":{}}`, 0)},
	{"metadata of numbers", "__metadata__", file(`{"__metadata__":{"a":1}}`, 0)},
	{"unknown field", "unknown field", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}`, 1)},
	{"unknown dtype", `dtype "F5"`, file(`{"a":{"dtype":"F5","shape":[1],"data_offsets":[0,1]}}`, 1)},
	{"no shape", "no shape", file(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1)},
	{"negative dimension", "negative", file(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1)},
	{"overflowing shape", "too many", file(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0)},
	{"one offset", "two numbers", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}`, 1)},
	{"reversed range", "not a range", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1)},
	{"wrong size", "takes 4", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}}`, 3)},
	{"past the end", "ends at byte", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 1)},
	{"gap", "gap", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2)},
	{"overlap", "overlaps", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3)},
	{"trailing data", "belong to none", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2)},
	{"number past int64", "not a tensor entry", file(`{"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]}}`, 1)},
}

func TestMalformedFilesAreOneClearError(t *testing.T) {
	for _, c := range malformed {
		_, err := safetensors.Open(bytes.NewReader(c.bytes), int64(len(c.bytes)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not say %q", c.name, err, c.want)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for want, tensors := range map[string][]safetensors.Tensor{
		"takes 2":     {{Name: "a", Shape: []int{2}, Data: make([]float32, 1)}},
		"given twice": {{Name: "a", Data: make([]float32, 1)}, {Name: "a", Data: make([]float32, 1)}},
		"reserved":    {{Name: "__metadata__", Data: make([]float32, 1)}},
		"F64":         {{Name: "a", Data: make([]float32, 1), DType: safetensors.F64}},
		"UTF-8":       {{Name: "\xff", Data: make([]float32, 1)}},
	} {
		if err := safetensors.Write(&bytes.Buffer{}, tensors, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestEmptyFileAndEmptyTensor(t *testing.T) {
	for _, tensors := range [][]safetensors.Tensor{nil, {{Name: "none", Shape: []int{0, 4}}}} {
		var b bytes.Buffer
		if err := safetensors.Write(&b, tensors, nil); err != nil {
			t.Fatal(err)
		}
		if got := open(t, b.Bytes()).Names(); len(got) != len(tensors) {
			t.Errorf("names %v of %d tensors", got, len(tensors))
		}
	}
}

// FuzzOpen: no input panics, and whatever opens can be read whole and survives being written again.
func FuzzOpen(f *testing.F) {
	for _, c := range malformed {
		f.Add(c.bytes)
	}
	for _, name := range []string{"f32.safetensors", "mixed.safetensors"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(file(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[0,3],"data_offsets":[4,4]}}   `, 4))
	f.Fuzz(func(t *testing.T, b []byte) { tryOpen(t, b) })
}

func tryOpen(t testing.TB, b []byte) {
	in, err := safetensors.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return
	}
	var tensors []safetensors.Tensor
	for _, name := range in.Names() {
		if d, _, _ := in.Info(name); d == safetensors.F32 || d == safetensors.F16 || d == safetensors.BF16 {
			tensors = append(tensors, read(t, in, name))
		}
	}
	var out bytes.Buffer
	if err := safetensors.Write(&out, tensors, in.Metadata); err != nil {
		t.Fatal(err)
	}
	again := open(t, out.Bytes())
	for _, want := range tensors {
		if got := read(t, again, want.Name); !equalBits(got.Data, want.Data) {
			t.Fatalf("%q changed", want.Name)
		}
	}
}

// TestF16 goes through all halves and the borders between them.
func TestF16(t *testing.T) {
	value := func(h uint16) float32 { return safetensors.Round(half(h), safetensors.F16) }
	for h := range uint16(0x7c00) {
		v, next := half(h), half(h+1)
		if h == 0x7bff {
			next = 65536 // what would be the next one
		}
		mid := (v + next) / 2
		even := h + h&1
		for in, want := range map[float32]uint16{v: h, mid: even, math.Nextafter32(mid, v): h, math.Nextafter32(mid, 1e9): h + 1} {
			if got := safetensors.ToF16(in); got != want {
				t.Fatalf("ToF16(%v) = %#x, want %#x", in, got, want)
			}
			if got := safetensors.ToF16(-in); got != want|0x8000 {
				t.Fatalf("ToF16(%v) = %#x, want %#x", -in, got, want|0x8000)
			}
		}
		if value(h) != v {
			t.Fatalf("%#x is %v, read back as %v", h, v, value(h))
		}
	}
	if got := safetensors.ToF16(float32(math.NaN())); got != 0x7e00 {
		t.Errorf("NaN is %#x", got)
	}
}

// half is the value of a positive binary16, by its definition.
func half(h uint16) float32 {
	exp, frac := int(h>>10), float64(h&1023)
	switch exp {
	case 31:
		return float32(math.Inf(1))
	case 0:
		return float32(math.Ldexp(frac, -24))
	}
	return float32(math.Ldexp(1024+frac, exp-25))
}
