package quant

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"lorad/model/safetensors"
)

// recorded is what scripts/oracle/quant.py had bitsandbytes compute.
type recorded struct {
	*testing.T
	file *safetensors.File
}

func record(t *testing.T) recorded {
	t.Helper()
	f, err := safetensors.OpenFS(os.DirFS("testdata"), "quant.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return recorded{t, f}
}

func (r recorded) floats(name string) []float32 {
	r.Helper()
	x, _, err := r.file.F32(name)
	if err != nil {
		r.Fatal(err)
	}
	return x
}

func (r recorded) bytes(name string) []byte {
	r.Helper()
	b, _, err := r.file.Bytes(name)
	if err != nil {
		r.Fatal(err)
	}
	return b
}

// sameBits counts the elements that differ in any bit; -0 is 0.
func sameBits(got, want []float32) (differ int) {
	if len(got) != len(want) {
		return max(len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			differ++
		}
	}
	return differ
}

func TestOracleDynamicMaps(t *testing.T) {
	r := record(t)
	for name, signed := range map[string]bool{"map.signed": true, "map.unsigned": false} {
		m := DynamicMap(signed)
		if n := sameBits(m[:], r.floats(name)); n > 0 {
			t.Errorf("%s: %d of 256 values differ from bitsandbytes'", name, n)
		}
		if !slices.IsSorted(m[:]) {
			t.Errorf("%s is not ascending", name)
		}
	}
}

func TestOracleBlockwise8Bit(t *testing.T) {
	r := record(t)
	for _, name := range []string{"signed", "unsigned"} {
		x := r.floats(name + ".x")
		codes, absmax := make([]uint8, len(x)), make([]float32, blocks(len(x), 256))
		Encode8(NewFinder(DynamicMap(name == "signed")), x, 256, codes, absmax)
		if !bytes.Equal(codes, r.bytes(name+".codes")) || sameBits(absmax, r.floats(name+".absmax")) > 0 {
			t.Errorf("%s: codes or scales differ from bitsandbytes'", name)
		}
	}
}

// Codes, order of nibbles, scales, nested scales and decoded weights are bitsandbytes', bit for bit; given its offset, which torch adds up in
// an order of its own.
func TestOracleNF4(t *testing.T) {
	r := record(t)
	for name, round := range map[string]Rounding{"bf16": BF16, "f16": F16, "f32": F32, "odd": F32} {
		w := r.floats(name)
		q := NewNF4(len(w), round)
		q.Encode(0, w)
		if !bytes.Equal(q.Codes, r.bytes(name+".codes")) || sameBits(q.Absmax, r.floats(name+".absmax")) > 0 {
			t.Errorf("%s: codes or scales differ from bitsandbytes'", name)
		}
		decoded(t, name+".decoded", q, r.floats(name+".decoded"))
		q.Nest(NewFinder(DynamicMap(true)))
		offset := r.floats(name + ".nested.offset")[0]
		if d := math.Abs(float64(q.Nested.Offset-offset)) / float64(offset); d > 1.2e-7 {
			t.Errorf("%s: offset %v, bitsandbytes %v", name, q.Nested.Offset, offset)
		}
		q.Nested.Offset = offset
		if !bytes.Equal(q.Nested.Codes, r.bytes(name+".nested.absmax")) {
			t.Errorf("%s: nested scales differ from bitsandbytes'", name)
		}
		q.Nested.Absmax = r.floats(name + ".nested.outer")
		decoded(t, name+".nested.decoded", q, r.floats(name+".nested.decoded"))
		if err := q.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func decoded(t *testing.T, name string, q *NF4, want []float32) {
	t.Helper()
	got := make([]float32, q.N)
	q.Decode(got, 0)
	if n := sameBits(got, want); n > 0 {
		t.Errorf("%s: %d of %d weights differ from bitsandbytes'", name, n, q.N)
	}
}

// Any stretch decodes to what the whole does, wherever it begins and ends.
func TestDecodeInPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	w := make([]float32, 64*9+37)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	q := NewNF4(len(w), BF16)
	q.Encode(0, w[:64*4])
	q.Encode(64*4, w[64*4:])
	whole := make([]float32, len(w))
	q.Decode(whole, 0)
	for range 500 {
		lo := r.IntN(len(w))
		part := make([]float32, r.IntN(len(w)-lo+1))
		q.Decode(part, lo)
		if sameBits(part, whole[lo:lo+len(part)]) > 0 {
			t.Fatalf("%d..%d differs", lo, lo+len(part))
		}
	}
}

// Groups are what Decode writes, rounded to bf16 as the products round.
func TestGroupsAreDecode(t *testing.T) {
	const rows, cols = 70, 192
	w := make([]float32, rows*cols)
	r := rand.New(rand.NewPCG(5, 6))
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	for _, round := range []Rounding{F32, BF16} {
		q := NewNF4(len(w), round)
		q.Encode(0, w)
		for range 2 { // plain scales, then nested ones
			dst := make([]uint32, rows*20)
			if !q.Groups(3*cols+64, rows-3, cols, dst, 20) {
				return // no assembly on this machine
			}
			x := make([]float32, GroupLen)
			for i := range rows - 3 {
				q.Decode(x, (3+i)*cols+64)
				for j, v := range x {
					if got, want := uint16(dst[i*20+j/2]>>(16*(j&1))), uint16(math.Float32bits(BF16.round(v))>>16); got != want {
						t.Fatalf("round %d, group %d, value %d: %x, want %x", round, i, j, got, want)
					}
				}
			}
			if dst[16] != 0 {
				t.Error("written beyond a group")
			}
			q.Nest(NewFinder(DynamicMap(true)))
		}
	}
}

// The table finds what the search finds: at every value of the map, at every midpoint, one step beside them, and at the ends of the range.
func TestFinderIsTheSearch(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, signed := range []bool{true, false} {
		m := DynamicMap(signed)
		f := NewFinder(m)
		x := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 2, -2, inf, -inf, float32(math.NaN()), 1e-45, -1e-45}
		for i := range 255 {
			mid := (m[i] + m[i+1]) * 0.5
			for _, v := range []float32{m[i], mid} {
				x = append(x, v, math.Nextafter32(v, 2), math.Nextafter32(v, -2))
			}
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 100000 {
			x = append(x, float32(r.NormFloat64()*math.Pow(10, -8*r.Float64())))
		}
		for _, v := range x {
			if got, want := f.Nearest(v), m.Nearest(v); got != want {
				t.Fatalf("signed %v: %v is code %d by the table, %d by the search", signed, v, got, want)
			}
		}
	}
}

// Halfway between two values the kernels' search ends on the even code, which is the dumb reading of it.
func TestNearest(t *testing.T) {
	m := DynamicMap(true)
	for i := range 255 {
		lo, hi := m[i], m[i+1]
		mid := (lo + hi) * 0.5
		even := uint8((i + 1) &^ 1)
		if a, b, c := m.Nearest(math.Nextafter32(mid, -2)), m.Nearest(mid), m.Nearest(math.Nextafter32(mid, 2)); a != uint8(i) && mid-lo > 0 || c != uint8(i+1) {
			t.Errorf("around %v, between codes %d and %d: %d %d %d", mid, i, i+1, a, b, c)
		} else if b != even {
			t.Errorf("halfway between codes %d and %d: %d", i, i+1, b)
		}
	}
}

func TestZerosAndEdges(t *testing.T) {
	q := NewNF4(128, F32)
	q.Encode(0, make([]float32, 128))
	got := make([]float32, 128)
	q.Decode(got, 0)
	if q.Codes[0] != 0 || sameBits(got, make([]float32, 128)) > 0 {
		t.Errorf("zeros: code %#x, decoded %v", q.Codes[0], got[0])
	}
	for i := -3000; i <= 3000; i++ { // the table against counting
		x, n := float32(i)/2500, 0
		for _, edge := range edges[:15] {
			if x > edge {
				n++
			}
		}
		if got := code(x); int(got) != n {
			t.Errorf("%v has code %d, %d edges are below it", x, got, n)
		}
	}
	for c, edge := range edges[:15] {
		if a, b := code(edge), code(math.Nextafter32(edge, 2)); a != byte(c) || b != byte(c+1) {
			t.Errorf("at edge %d: code %d, above it %d", c, a, b)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	good := func() *NF4 {
		q := NewNF4(1000, BF16)
		q.Nest(NewFinder(DynamicMap(true)))
		return q
	}
	for name, spoil := range map[string]func(*NF4){
		"block":  func(q *NF4) { q.Block = 0 },
		"block3": func(q *NF4) { q.Block = 48 },
		"codes":  func(q *NF4) { q.Codes = q.Codes[1:] },
		"scales": func(q *NF4) { q.Nested = nil },
		"both":   func(q *NF4) { q.Absmax = make([]float32, 16) },
		"inner":  func(q *NF4) { q.Nested.Codes = nil },
		"outer":  func(q *NF4) { q.Nested.Absmax = nil },
		"size":   func(q *NF4) { q.Nested.Block = 0 },
	} {
		q := good()
		if q.Check() != nil {
			t.Fatal(q.Check())
		}
		if spoil(q); q.Check() == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}

// 4.5 bits a weight with plain scales, 4.127 with nested ones.
func TestBytes(t *testing.T) {
	q := NewNF4(1<<20, BF16)
	plain := q.Bytes()
	q.Nest(NewFinder(DynamicMap(true)))
	if nested := q.Bytes(); plain != 1<<19+4<<14 || nested != 1<<19+1<<14+4<<6+4*257 {
		t.Errorf("%d and %d bytes", plain, nested)
	}
}

func BenchmarkEncodeNF4(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	w := make([]float32, 1<<20)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	q := NewNF4(len(w), BF16)
	b.SetBytes(int64(len(w)))
	for b.Loop() {
		q.Encode(0, w)
	}
}

func BenchmarkDecodeNF4(b *testing.B) {
	q := NewNF4(1<<20, BF16)
	for i := range q.Codes {
		q.Codes[i] = byte(i * 37)
	}
	x := make([]float32, q.N)
	b.SetBytes(int64(q.N))
	for b.Loop() {
		q.Decode(x, 0)
	}
}

func BenchmarkFinder(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, 1<<16)
	for i := range x {
		x[i] = float32(r.NormFloat64() / 4)
	}
	q, a := make([]uint8, len(x)), make([]float32, len(x)/256)
	f := NewFinder(DynamicMap(true))
	b.SetBytes(int64(len(x)))
	for b.Loop() {
		Encode8(f, x, 256, q, a)
	}
}
