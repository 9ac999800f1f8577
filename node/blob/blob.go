// Package blob keeps the inputs of runs by the hash of their content.
//
// A run names its base model and data by SHA-256, so any node can get them from any other and know that it has
// the right bytes. What lies on this machine already is not copied: a blob is then a reference (path, size,
// modification time), checked again before it is used. What came from a peer is a file under the store's
// directory, fetched chunk by chunk (fetch.go), each of which is checked as it comes, so that a wrong one costs one chunk,
// what is there survives a restart, and several peers can deliver at the same time. Blobs that ship inside the binary are a third, read-only source.
package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"lorad/internal/durable"
)

// Hash is the SHA-256 of a blob's content.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// HashOf takes a hash from the wire.
func HashOf(b []byte) (Hash, error) {
	var h Hash
	if len(b) != len(h) {
		return h, fmt.Errorf("blob hash: %d bytes, want %d", len(b), len(h))
	}
	return Hash(b), nil
}

// Info names a blob, its size in bytes, and the hash of each of its chunks (none if it is one chunk).
type Info struct {
	Hash   Hash
	Size   int64
	Chunks []byte
}

// ErrMissing says that no source on this node has the blob.
var ErrMissing = errors.New("not on this node")

// Store finds blobs on one node. It is safe for concurrent use.
type Store struct {
	dir     string
	mu      sync.Mutex
	shipped map[Hash]shippedFile
}

type shippedFile struct {
	fsys fs.FS
	name string
}

// reference is a blob that lies in a file of the user's.
type reference struct {
	Path  string `json:"path"`
	Size  int64  `json:"size"`
	MTime int64  `json:"mtime_unix_ns"`
}

// Open opens the store in dir, making it if need be.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open blob store: %w", err)
	}
	return &Store{dir: dir, shipped: map[Hash]shippedFile{}}, nil
}

// AddFile takes a file of the user's into the store by reference.
func (s *Store) AddFile(path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, fmt.Errorf("read input: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Info{}, fmt.Errorf("read input: %w", err)
	}
	info, err := hash(f, st.Size())
	if err != nil {
		return Info{}, fmt.Errorf("read input %s: %w", path, err)
	}
	ref, err := json.Marshal(reference{Path: path, Size: info.Size, MTime: st.ModTime().UnixNano()})
	if err != nil {
		return Info{}, err
	}
	return info, durable.WriteFile(s.path(info.Hash)+".ref", ref, 0o600)
}

// AddShipped takes a file that is part of the program into the store.
func (s *Store) AddShipped(fsys fs.FS, name string) (Info, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return Info{}, fmt.Errorf("read built-in file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Info{}, fmt.Errorf("read built-in file: %w", err)
	}
	info, err := hash(f, st.Size())
	if err != nil {
		return Info{}, fmt.Errorf("read built-in file %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shipped[info.Hash] = shippedFile{fsys, name}
	return info, nil
}

// Open opens a blob, or returns an error that wraps ErrMissing.
func (s *Store) Open(h Hash) (fs.File, error) {
	s.mu.Lock()
	in, ok := s.shipped[h]
	s.mu.Unlock()
	if ok {
		return in.fsys.Open(in.name)
	}
	f, err := os.Open(s.path(h))
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return s.openReference(h)
}

// openReference opens the user's file behind h. A file that was touched since is hashed again: training on
// other bytes than the run named would break every promise about its result.
func (s *Store) openReference(h Hash) (fs.File, error) {
	raw, err := os.ReadFile(s.path(h) + ".ref")
	if err != nil {
		return nil, fmt.Errorf("blob %.12s: %w", h, ErrMissing)
	}
	var ref reference
	if err := json.Unmarshal(raw, &ref); err != nil {
		return nil, fmt.Errorf("blob %.12s: reference: %w", h, err)
	}
	f, err := os.Open(ref.Path)
	if err != nil {
		return nil, fmt.Errorf("blob %.12s: %w: %w", h, ErrMissing, err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() == ref.Size && st.ModTime().UnixNano() == ref.MTime {
		return f, nil
	}
	f.Close()
	if info, err := s.AddFile(ref.Path); err != nil || info.Hash != h {
		return nil, fmt.Errorf("blob %.12s: %w: %s has changed since the run was submitted; put the old content back or submit the job again", h, ErrMissing, ref.Path)
	}
	return os.Open(ref.Path)
}

// Has says whether Open would succeed.
func (s *Store) Has(h Hash) bool {
	f, err := s.Open(h)
	if err == nil {
		f.Close()
	}
	return err == nil
}

func (s *Store) path(h Hash) string { return filepath.Join(s.dir, h.String()) }

// View shows blobs under names, as a file system.
func (s *Store) View(names map[string]Hash) fs.FS { return view{s, names} }

type view struct {
	store *Store
	names map[string]Hash
}

func (v view) Open(name string) (fs.File, error) {
	h, ok := v.names[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := v.store.Open(h)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, nil
}
