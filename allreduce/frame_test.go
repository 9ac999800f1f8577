package allreduce

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// ints draws values of one magnitude, with extremes.
func ints(t *rapid.T) []int64 {
	bits := rapid.IntRange(0, 63).Draw(t, "bits")
	lo, hi := int64(-1)<<bits, int64(1)<<bits-1
	if bits == 63 {
		lo, hi = math.MinInt64, math.MaxInt64
	}
	return rapid.SliceOfN(rapid.Int64Range(lo, hi), 1, 40).Draw(t, "values")
}

// TestBlockRoundTrip: packing loses nothing, reports its length, needs no more than its slack, and is as narrow
// as two's complement allows.
func TestBlockRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := ints(t)
		in := rapid.SliceOfN(rapid.Int64(), len(v), len(v)).Draw(t, "in")
		buf := make([]byte, 1+8*len(v)+slack)
		tight := rapid.Bool().Draw(t, "tight")
		n := pack(buf, v, tight)
		got := make([]int64, len(v))
		if m, err := unpackAdd(got, in, buf[:n+slack], n); err != nil || m != n {
			t.Fatal(m, n, err)
		}
		for i := range v {
			if got[i] != in[i]+v[i] {
				t.Fatalf("value %d: got %d, want %d", i, got[i]-in[i], v[i])
			}
		}
		w := int(buf[0])
		if n != 1+packed(len(v), w) || tight && w > 0 && fitsBits(v, w-1) && w != wholeWord || !fitsBits(v, w) {
			t.Fatalf("form %d, %d bytes for %v", w, n, v)
		}
		for end := range n {
			if _, err := unpackAdd(got, in, buf[:end+slack], end); err == nil {
				t.Fatalf("accepted a block cut to %d of %d bytes", end, n)
			}
		}
	})
}

// fitsBits is the definition of a width: w bits hold every value with its sign; no bits hold zeros.
func fitsBits(v []int64, w int) bool {
	for _, x := range v {
		if s := 64 - w; w == 0 && x != 0 || w > 0 && x<<s>>s != x {
			return false
		}
	}
	return true
}

// TestFloatBlockRoundTrip: a block of finished values loses nothing whichever form it takes, and takes the narrower one.
func TestFloatBlockRoundTrip(t *testing.T) {
	seen := map[byte]bool{}
	rapid.Check(t, func(t *rapid.T) {
		unit := float32(math.Ldexp(1, rapid.SampledFrom([]int{-62, -40, 0}).Draw(t, "unit")))
		v := ints(t)
		g := make([]float32, len(v))
		round(g, v, unit)
		buf := make([]byte, 1+8*len(g)+slack)
		n := packFloats(buf, g, unit, rapid.Bool().Draw(t, "tight"))
		got := slices.Repeat([]float32{9}, len(g))
		if m, err := unpackFloats(got, unit, buf[:n+slack], n); err != nil || m != n || !sameBits(got, g) {
			t.Fatal(buf[0], got, g, err)
		}
		if n > 1+4*len(g)+4 {
			t.Fatalf("%d bytes for %d values", n, len(g))
		}
		for end := range n {
			if _, err := unpackFloats(got, unit, buf[:end+slack], end); err == nil {
				t.Fatalf("accepted a block cut to %d of %d bytes", end, n)
			}
		}
		seen[buf[0]&floatForm] = true
	})
	if !seen[0] || !seen[floatForm] {
		t.Errorf("forms seen: %v", seen)
	}
}

// TestShape: segments cover every slot once, in order, and the widest one fits a frame.
func TestShape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shares := rapid.SliceOfN(rapid.Int64Range(0, 9), 1, 9).Draw(t, "shares")
		shares[0]++
		s := newShape(rapid.IntRange(0, 300_000).Draw(t, "params"), rapid.IntRange(5, 3000).Draw(t, "trailer"), shares, nil)
		next, count := 0, 0
		for c := range s.chunks() {
			for seg := range s.segments(c) {
				count++
				bytes := 0
				b0, b1 := s.segment(c, seg)
				for b := b0; b < b1; b++ {
					lo, hi := s.block(b)
					if lo != next || hi <= lo || hi-lo > blockLen || lo < s.params && hi > s.params {
						t.Fatalf("block %d is %d..%d after %d", b, lo, hi, next)
					}
					next, bytes = hi, bytes+1+8*(hi-lo)
				}
				if bytes > MaxPayload {
					t.Fatalf("a segment of %d bytes", bytes)
				}
			}
		}
		if next != s.params+s.trailer || count != s.allSegments() {
			t.Fatalf("covered %d of %d slots, %d segments", next, s.params+s.trailer, count)
		}
	})
}

var sampleHeader = Header{
	Type: Data, Phase: AllGather, Op: OpID{1 << 60, 2, 3, 4, 5}, Hop: 6, Segment: 7, Plan: 8,
}

func frameOf(h Header, payload []byte) []byte {
	var b [HeaderSize]byte
	h.Put(&b, payload)
	return append(b[:], payload...)
}

// TestFrameCorruption: no single flipped bit gets through.
func TestFrameCorruption(t *testing.T) {
	frame := frameOf(sampleHeader, []byte("payload"))
	buf, hdr := make([]byte, 64), new([HeaderSize]byte)
	h, body, err := ReadFrame(bytes.NewReader(frame), hdr, buf)
	want := sampleHeader
	want.Length = 7
	if err != nil || h != want || string(body) != "payload" {
		t.Fatal(h, body, err)
	}
	for bit := range 8 * len(frame) {
		bad := bytes.Clone(frame)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, _, err := ReadFrame(bytes.NewReader(bad), hdr, buf); err == nil {
			t.Errorf("bit %d flipped unnoticed", bit)
		}
	}
	for n := range frame {
		_, _, err := ReadFrame(bytes.NewReader(frame[:n]), hdr, buf)
		if want := io.ErrUnexpectedEOF; n > 0 && !errors.Is(err, want) || n == 0 && err != io.EOF {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

// TestHostileLength: a header that announces 4 GiB is refused before anything is read or allocated for it.
func TestHostileLength(t *testing.T) {
	frame := frameOf(sampleHeader, nil)
	copy(frame[52:], []byte{0xff, 0xff, 0xff, 0xff})
	if _, err := ParseHeader((*[HeaderSize]byte)(frame)); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	buf, hdr, r := make([]byte, 64), new([HeaderSize]byte), bytes.NewReader(frame)
	if _, _, err := ReadFrame(r, hdr, buf); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	copy(frame[52:], []byte{65, 0, 0, 0}) // within the protocol's bound, beyond the reader's
	if _, _, err := ReadFrame(bytes.NewReader(frame), hdr, buf); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(100, func() {
		r.Reset(frame)
		_, _, _ = ReadFrame(r, hdr, buf)
	})
	if n > 3 { // the error and its text
		t.Errorf("%v allocations", n)
	}
}

// FuzzReadFrame: whatever the bytes, the reader stays within its buffer, and what it accepts it would have written.
func FuzzReadFrame(f *testing.F) {
	f.Add(frameOf(sampleHeader, []byte("payload")))
	f.Add(frameOf(Header{Type: Bye}, nil))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) { tryReadFrame(t, b) })
}

func tryReadFrame(t testing.TB, b []byte) {
	buf := make([]byte, 100)
	h, body, err := ReadFrame(bytes.NewReader(b), new([HeaderSize]byte), buf)
	if err != nil {
		return
	}
	if again := frameOf(h, body); !bytes.Equal(again, b[:len(again)]) {
		t.Fatalf("read %+v, which is written %x", h, again)
	}
}

// FuzzDecodeSegment: whatever a payload with a valid checksum holds, decoding it stays within bounds.
func FuzzDecodeSegment(f *testing.F) {
	f.Add([]byte{0, 0, 0}, uint8(0))
	f.Add([]byte{4, 1, 2, 3, 4}, uint8(1))
	f.Add([]byte{floatForm + 31, 1, 2, 3, 4, 5, 6}, uint8(1))
	f.Add([]byte{rawFloats, 1, 2, 3, 4, 5, 6}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, hop uint8) { tryDecodeSegment(t, b, hop) })
}

func tryDecodeSegment(t testing.TB, b []byte, hop uint8) {
	r := reduction{shape: newShape(2000, 9, []int64{1, 1}, nil), in: make([]int64, 2009), acc: make([]int64, 2009), out: make([]float32, 2000), unit: 1}
	buf := append(bytes.Clone(b), make([]byte, slack)...)
	for c := range 2 {
		k := packet{payload: buf[:len(b)], buf: buf[:len(b):len(buf)]}
		if hop%2 == 0 {
			_ = r.add(r.in, c, 0, k)
		} else {
			_ = r.store(c, 0, k)
		}
	}
}
