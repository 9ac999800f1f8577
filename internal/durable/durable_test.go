package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDirReplacesOrLeaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "checkpoint-1")
	put := func(text string) func(string) error {
		return func(tmp string) error { return os.WriteFile(filepath.Join(tmp, "f"), []byte(text), 0o600) }
	}
	for _, text := range []string{"one", "two"} {
		if err := Dir(path, put(text)); err != nil {
			t.Fatal(err)
		}
	}
	full := errors.New("no space left on device")
	err := Dir(path, func(tmp string) error { put("three")(tmp); return full })
	if !errors.Is(err, full) {
		t.Fatalf("want the cause, got %v", err)
	}
	if got, _ := os.ReadFile(filepath.Join(path, "f")); string(got) != "two" {
		t.Fatalf("a failed write changed the directory: %q", got)
	}
	alone(t, filepath.Dir(path))
}

func TestWriteFileLeavesNoTemporaries(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"one", "two"} {
		if err := WriteFile(filepath.Join(dir, "f"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "f")); string(got) != "two" {
		t.Fatalf("got %q", got)
	}
	alone(t, dir)
}

func alone(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("want one entry in %s, got %v (%v)", dir, entries, err)
	}
}
