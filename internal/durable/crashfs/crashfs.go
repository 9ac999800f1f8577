// Package crashfs is a file system in memory, for tests, whose operations fail and whose power fails: at any operation
// one wants.
//
// It is strict: what was not flushed may be lost. A file keeps what it had at its last Sync and any part of what was
// written since; a directory keeps the names of its last Sync and any number of the changes since, the first ones
// first, because file systems log them in order. Directories lose theirs independently of each other.
package crashfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"lorad/internal/durable"
)

// Fault is what happens at an operation that changes something.
type Fault int

// The faults.
const (
	None  Fault = iota // nothing happens
	Once               // this operation fails: ENOSPC, a write after half of it
	Full               // this one and all later ones that need room fail; removing does not
	Power              // this one and all later ones fail; see Crash
)

var errPower = errors.New("the power is out")

// FS implements durable.FS.
type FS struct {
	Fault Fault
	At    int // operation, from 0
	Ops   int // operations so far
	root  *inode
}

// inode is a file or a directory.
type inode struct {
	perm     os.FileMode
	data     []byte // of a file
	flushed  []byte
	names    map[string]*inode // of a directory; nil: a file
	settled  map[string]*inode // at its last Sync
	unsynced []map[string]*inode
}

// New returns an empty file system.
func New() *FS { return &FS{root: dir(0o755)} }

func dir(perm os.FileMode) *inode {
	return &inode{perm: perm, names: map[string]*inode{}, settled: map[string]*inode{}}
}

// set changes a name of a directory; n = nil removes it.
func (d *inode) set(change map[string]*inode) {
	d.unsynced = append(d.unsynced, maps.Clone(d.names))
	for name, n := range change {
		if n == nil {
			delete(d.names, name)
		} else {
			d.names[name] = n
		}
	}
}

// Crash is what is there when the power comes back.
func (f *FS) Crash(seed uint64) *FS {
	return &FS{root: f.root.survive(rand.New(rand.NewPCG(seed, 0)))}
}

func (n *inode) survive(r *rand.Rand) *inode {
	if n.names == nil {
		data := slices.Clone(n.flushed)
		if k := len(n.data) - len(n.flushed); k > 0 {
			data = append(data, n.data[len(n.flushed):len(n.flushed)+r.IntN(k+1)]...)
		}
		return &inode{perm: n.perm, data: data, flushed: data}
	}
	names := n.settled
	if states := append(n.unsynced, n.names); len(n.unsynced) > 0 {
		if k := r.IntN(len(states) + 1); k < len(states) {
			names = states[k]
		}
	}
	out := dir(n.perm)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out.names[name] = names[name].survive(r)
	}
	out.settled = maps.Clone(out.names)
	return out
}

// step counts an operation and says how it fails.
func (f *FS) step(needsRoom bool) error {
	k := f.Ops
	f.Ops++
	switch {
	case f.Fault == Power && k >= f.At:
		return errPower
	case f.Fault == Once && k == f.At, f.Fault == Full && k >= f.At && needsRoom:
		return syscall.ENOSPC
	}
	return nil
}

// find is the inode of a path, or nil.
func (f *FS) find(p string) *inode {
	n := f.root
	for _, name := range strings.Split(strings.Trim(path.Clean(p), "/"), "/") {
		if name == "" || name == "." {
			continue
		}
		if n = n.names[name]; n == nil {
			return nil
		}
	}
	return n
}

// parent is the directory that a path is in.
func (f *FS) parent(p string) (*inode, string, error) {
	d := f.find(path.Dir(p))
	if d == nil || d.names == nil {
		return nil, "", &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return d, path.Base(p), nil
}

// Create implements durable.FS.
func (f *FS) Create(p string, perm os.FileMode) (durable.File, error) {
	n := &inode{perm: perm}
	return &file{f, n}, f.make(p, n)
}

// Mkdir implements durable.FS.
func (f *FS) Mkdir(p string, perm os.FileMode) error { return f.make(p, dir(perm)) }

func (f *FS) make(p string, n *inode) error {
	if err := f.step(true); err != nil {
		return err
	}
	d, name, err := f.parent(p)
	if err != nil {
		return err
	}
	if d.names[name] != nil {
		return &fs.PathError{Op: "create", Path: p, Err: fs.ErrExist}
	}
	d.set(map[string]*inode{name: n})
	return nil
}

// MkdirAll implements durable.FS. The directories are taken to have been there for long.
func (f *FS) MkdirAll(p string) error {
	n := f.root
	for _, name := range strings.Split(strings.Trim(path.Clean(p), "/"), "/") {
		if n.names[name] == nil {
			n.names[name] = dir(0o755)
			n.settled[name] = n.names[name]
		}
		n = n.names[name]
	}
	return nil
}

// Open implements durable.FS.
func (f *FS) Open(p string) (io.ReadSeekCloser, error) {
	n := f.find(p)
	if n == nil || n.names != nil {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return reader{bytes.NewReader(n.data)}, nil
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

// Rename implements durable.FS, within one directory.
func (f *FS) Rename(from, to string) error {
	if err := f.step(true); err != nil {
		return err
	}
	d, name, err := f.parent(from)
	if err != nil {
		return err
	}
	n, old := d.names[name], d.names[path.Base(to)]
	switch {
	case path.Dir(from) != path.Dir(to):
		return errors.New("crashfs: rename to another directory: not modelled")
	case n == nil:
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	case old != nil && len(old.names) > 0:
		return &fs.PathError{Op: "rename", Path: to, Err: syscall.ENOTEMPTY}
	}
	d.set(map[string]*inode{name: nil, path.Base(to): n})
	return nil
}

// RemoveAll implements durable.FS.
func (f *FS) RemoveAll(p string) error {
	d, name, err := f.parent(p)
	if err != nil || d.names[name] == nil {
		return nil
	}
	for _, child := range slices.Sorted(maps.Keys(d.names[name].names)) {
		if err := f.RemoveAll(path.Join(p, child)); err != nil {
			return err
		}
	}
	if err := f.step(false); err != nil {
		return err
	}
	d.set(map[string]*inode{name: nil})
	return nil
}

// ReadDir implements durable.FS.
func (f *FS) ReadDir(p string) ([]fs.DirEntry, error) {
	n := f.find(p)
	if n == nil || n.names == nil {
		return nil, &fs.PathError{Op: "readdir", Path: p, Err: fs.ErrNotExist}
	}
	var out []fs.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		out = append(out, fs.FileInfoToDirEntry(info{name, n.names[name]}))
	}
	return out, nil
}

// Sync implements durable.FS.
func (f *FS) Sync(p string) error {
	if err := f.step(true); err != nil {
		return err
	}
	n := f.find(p)
	if n == nil {
		return &fs.PathError{Op: "sync", Path: p, Err: fs.ErrNotExist}
	}
	n.flush()
	return nil
}

func (n *inode) flush() {
	n.flushed = slices.Clone(n.data)
	n.settled, n.unsynced = maps.Clone(n.names), nil
}

// file is open for writing.
type file struct {
	fs *FS
	n  *inode
}

func (w *file) Write(b []byte) (int, error) {
	err := w.fs.step(true)
	if err != nil {
		b = b[:len(b)/2]
	}
	w.n.data = append(w.n.data, b...)
	return len(b), err
}

func (w *file) Sync() error {
	if err := w.fs.step(true); err != nil {
		return err
	}
	w.n.flush()
	return nil
}

func (w *file) Close() error { return w.fs.step(true) }

// info is an fs.FileInfo.
type info struct {
	name string
	n    *inode
}

func (i info) Name() string { return i.name }
func (i info) Size() int64  { return int64(len(i.n.data)) }
func (i info) Mode() fs.FileMode {
	if i.IsDir() {
		return fs.ModeDir | i.n.perm
	}
	return i.n.perm
}
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.n.names != nil }
func (i info) Sys() any           { return nil }
