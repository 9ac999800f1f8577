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
	c, _ := hash(strings.NewReader("fetched"), 7)
	if s.Has(c.Hash) {
		t.Fatal("has what it never got")
	}
	fetch(t, s, c, "fetched")
	v := s.View(map[string]Hash{"a": a.Hash, "base/b": b.Hash, "c": c.Hash})
	for name, want := range map[string]string{"a": "user's", "base/b": "shipped", "c": "fetched"} {
		if got, err := fs.ReadFile(v, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
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
