package blob

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestThreeSourcesOneView(t *testing.T) {
	s := open(t)
	path := filepath.Join(t.TempDir(), "f")
	os.WriteFile(path, []byte("user's"), 0o600)
	a, err := s.AddFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.AddShipped(fstest.MapFS{"x": {Data: []byte("shipped")}}, "x")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := hash(strings.NewReader("fetched"))
	if s.Has(c.Hash) {
		t.Fatal("has what it never got")
	}
	if err := s.Put(c, strings.NewReader("fetched")); err != nil {
		t.Fatal(err)
	}
	v := s.View(map[string]Hash{"a": a.Hash, "base/b": b.Hash, "c": c.Hash})
	for name, want := range map[string]string{"a": "user's", "base/b": "shipped", "c": "fetched"} {
		if got, err := fs.ReadFile(v, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestPutRefusesOtherBytes(t *testing.T) {
	s := open(t)
	want, _ := hash(strings.NewReader("right"))
	for _, wrong := range []string{"wrong", "righ", "right and more"} {
		if err := s.Put(want, strings.NewReader(wrong)); err == nil {
			t.Errorf("took %q", wrong)
		}
	}
	if s.Has(want.Hash) {
		t.Error("kept wrong bytes")
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, ".fetch-*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestChangedReferenceIsMissing(t *testing.T) {
	s := open(t)
	path := filepath.Join(t.TempDir(), "f")
	os.WriteFile(path, []byte("before"), 0o600)
	info, _ := s.AddFile(path)
	os.WriteFile(path, bytes.ToUpper([]byte("before!")), 0o600)
	if _, err := s.Open(info.Hash); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "changed since") {
		t.Fatalf("got %v", err)
	}
}
