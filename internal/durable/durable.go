// Package durable makes files that are either wholly there or not there at all, also after a power cut.
//
// Everything is written under a temporary name in the same directory, flushed to the disk, renamed, and the
// directory flushed too: rename is atomic, but neither the data nor the new name is durable without the flushes. When
// something fails (a full disk, a disk that dies), what was there before stays, and the temporary name is removed; after
// a power cut Sweep does that.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// marker is in every temporary name.
const marker = ".tmp-"

func temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+marker+rand.Text())
}

// WriteFile replaces path by data, or leaves what was there.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	return WriteFileOn(OS{}, path, data, perm)
}

// WriteFileOn is WriteFile on any file system.
func WriteFileOn(disk FS, path string, data []byte, perm os.FileMode) error {
	tmp := temporary(path)
	err := fill(disk, tmp, data, perm)
	if err == nil {
		err = disk.Rename(tmp, path)
	}
	if err != nil {
		disk.RemoveAll(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := disk.Sync(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func fill(disk FS, path string, data []byte, perm os.FileMode) error {
	f, err := disk.Create(path, perm)
	if err != nil {
		return err
	}
	n, err := f.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Dir makes directory path with everything that fill puts into it, at once: fill gets a temporary directory
// beside path. An existing path is replaced. Every file that fill leaves is flushed.
func Dir(path string, fill func(tmp string) error) error { return DirOn(OS{}, path, fill) }

// DirOn is Dir on any file system.
func DirOn(disk FS, path string, fill func(tmp string) error) error {
	tmp := temporary(path)
	err := disk.MkdirAll(filepath.Dir(path))
	if err == nil {
		err = disk.Mkdir(tmp, 0o755)
	}
	if err == nil {
		err = fill(tmp)
	}
	if err == nil {
		err = syncTree(disk, tmp)
	}
	if err == nil {
		err = replaceDir(disk, tmp, path)
	}
	if err != nil {
		disk.RemoveAll(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// replaceDir moves an existing directory aside first: rename cannot replace a directory that is not empty. A power cut
// in between would lose both, so whoever replaces something that counts looks first whether he must.
func replaceDir(disk FS, tmp, path string) error {
	old := tmp + ".old"
	moved := disk.Rename(path, old)
	if moved != nil && !errors.Is(moved, fs.ErrNotExist) {
		return moved
	}
	if err := disk.Rename(tmp, path); err != nil {
		if moved == nil {
			err = errors.Join(err, disk.Rename(old, path))
		}
		return err
	}
	err := disk.Sync(filepath.Dir(path))
	disk.RemoveAll(old)
	return err
}

func syncTree(disk FS, dir string) error {
	entries, err := disk.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = syncTree(disk, path)
		} else {
			err = disk.Sync(path)
		}
		if err != nil {
			return err
		}
	}
	return disk.Sync(dir)
}

// SyncDir flushes the names in a directory.
func SyncDir(dir string) error { return OS{}.Sync(dir) }

// Sweep removes what writers left in dir that were cut off before they could tidy up: temporaries of names that begin
// with prefix. Nobody may be writing there.
func Sweep(disk FS, dir, prefix string) error {
	entries, err := disk.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+prefix) && strings.Contains(e.Name(), marker) {
			if err := disk.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
