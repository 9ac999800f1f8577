package blob

import (
	"bytes"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func begin(t *testing.T, s *Store, want Info) *Part {
	t.Helper()
	p, err := s.Begin(want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// fetch stores a blob of one chunk.
func fetch(t *testing.T, s *Store, want Info, data string) {
	t.Helper()
	p := begin(t, s, want)
	if err := p.Put(0, strings.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := p.Finish(); err != nil {
		t.Fatal(err)
	}
}

func TestChunksAreChecked(t *testing.T) {
	s := open(t)
	want, _ := hash(strings.NewReader("right"), 5)
	p := begin(t, s, want)
	for _, wrong := range []string{"wrong", "righ", ""} {
		if err := p.Put(0, strings.NewReader(wrong)); err == nil {
			t.Errorf("took %q", wrong)
		}
	}
	if p.Finish() == nil || s.Has(want.Hash) {
		t.Error("finished without the right bytes")
	}
	if err := p.Put(0, strings.NewReader("right and more")); err != nil {
		t.Errorf("what comes after the chunk is nobody's business: %v", err)
	}
	if err := p.Finish(); err != nil || !s.Has(want.Hash) {
		t.Error(err)
	}
}

// A fetch that was cut short goes on with the chunks that are missing or were damaged meanwhile.
func TestFetchGoesOnWhereItWas(t *testing.T) {
	data := make([]byte, 3*leastChunk+1000)
	rand.NewChaCha8([32]byte{1}).Read(data)
	want, err := hash(bytes.NewReader(data), int64(len(data)))
	if err != nil || len(want.Chunks) != 4*32 {
		t.Fatalf("%d bytes of chunk hashes, %v", len(want.Chunks), err)
	}
	s := open(t)
	put := func(p *Part, chunks ...int) {
		for _, i := range chunks {
			offset, length := p.Range(i)
			if err := p.Put(i, bytes.NewReader(data[offset:offset+length])); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := begin(t, s, want)
	put(first, 3, 0, 1)
	first.f.WriteAt([]byte("damage"), leastChunk+7)
	first.Close()
	second := begin(t, s, want)
	if left := second.Missing(); !slices.Equal(left, []int{1, 2}) {
		t.Fatalf("missing %v", left)
	}
	put(second, 2, 1)
	if err := second.Finish(); err != nil {
		t.Fatal(err)
	}
	got, err := fs.ReadFile(s.View(map[string]Hash{"x": want.Hash}), "x")
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := os.Stat(s.path(want.Hash) + ".part"); err == nil {
		t.Error("the part is left")
	}
}

func TestChunkListHasToFit(t *testing.T) {
	s := open(t)
	for _, want := range []Info{{Size: 3 * leastChunk}, {Size: 5, Chunks: make([]byte, 64)}, {Size: leastChunk + 1, Chunks: make([]byte, 32)}} {
		if _, err := s.Begin(want); err == nil {
			t.Errorf("%d bytes with %d bytes of chunk hashes", want.Size, len(want.Chunks))
		}
	}
}

// A size that no disk has comes to an end too: runs come from other nodes.
func TestSizesThatCannotBe(t *testing.T) {
	s := open(t)
	for _, size := range []int64{math.MaxInt64, math.MaxInt64 - 1, 1 << 62, -1} {
		done := make(chan error, 1)
		go func() {
			_, err := s.Begin(Info{Hash: Hash{1}, Size: size})
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("a blob of %d bytes is fetched", size)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("a blob of %d bytes: no end", size)
		}
	}
}

func TestChunkListStaysShort(t *testing.T) {
	for _, size := range []int64{0, 1, leastChunk, 1 << 32, 1<<32 + 1, 1 << 38} {
		if n := chunks(size); n > mostChunks || ChunkSize(size) < leastChunk {
			t.Errorf("%d bytes: %d chunks", size, n)
		}
	}
}
