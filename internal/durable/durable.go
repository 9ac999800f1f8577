// Package durable makes files that are either wholly there or not there at all, also after a power cut.
//
// Everything is written under a temporary name in the same directory, flushed to the disk, renamed, and the
// directory flushed too: rename is atomic, but neither the data nor the new name is durable without the flushes.
package durable

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile replaces path by data, or leaves what was there.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // fails harmlessly after the rename
	err = fill(f, data, perm)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func fill(f *os.File, data []byte, perm os.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// Dir makes directory path with everything that fill puts into it, at once: fill gets a temporary directory
// beside path. An existing path is replaced. Every file that fill leaves is flushed.
func Dir(path string, fill func(tmp string) error) error {
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp, err := os.MkdirTemp(parent, "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.RemoveAll(tmp) // nothing left to remove after the rename
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := fill(tmp); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := syncTree(tmp); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return replaceDir(tmp, path)
}

// replaceDir moves an existing directory aside first: rename cannot replace a directory that is not empty.
func replaceDir(tmp, path string) error {
	old := tmp + ".old"
	err := os.Rename(path, old)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	os.RemoveAll(old)
	return SyncDir(filepath.Dir(path))
}

func syncTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = syncTree(path)
		} else {
			err = syncFile(path)
		}
		if err != nil {
			return err
		}
	}
	return SyncDir(dir)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// SyncDir flushes the names in a directory.
func SyncDir(dir string) error { return syncFile(dir) }
