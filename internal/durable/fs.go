package durable

import (
	"io"
	"io/fs"
	"os"
)

// FS is what is needed of a file system. Tests have one that fails and loses power (package crashfs).
type FS interface {
	// Create makes a new file with exactly these permissions; it is an error if the name is taken.
	Create(path string, perm os.FileMode) (File, error)
	Open(path string) (io.ReadSeekCloser, error)
	Mkdir(path string, perm os.FileMode) error
	MkdirAll(path string) error
	Rename(from, to string) error
	RemoveAll(path string) error
	ReadDir(path string) ([]fs.DirEntry, error)
	// Sync flushes the contents of a file, or the names in a directory.
	Sync(path string) error
}

// File is a new file.
type File interface {
	io.Writer
	Sync() error
	Close() error
}

// OS is the file system of the machine.
type OS struct{}

// Create implements FS.
func (OS) Create(path string, perm os.FileMode) (File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil { // whatever the umask
		f.Close()
		return nil, err
	}
	return f, nil
}

// Open implements FS.
func (OS) Open(path string) (io.ReadSeekCloser, error) { return os.Open(path) }

// Mkdir implements FS.
func (OS) Mkdir(path string, perm os.FileMode) error {
	if err := os.Mkdir(path, perm); err != nil {
		return err
	}
	return os.Chmod(path, perm)
}

// MkdirAll implements FS.
func (OS) MkdirAll(path string) error { return os.MkdirAll(path, 0o755) }

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// RemoveAll implements FS.
func (OS) RemoveAll(path string) error { return os.RemoveAll(path) }

// ReadDir implements FS.
func (OS) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }

// Sync implements FS.
func (OS) Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
