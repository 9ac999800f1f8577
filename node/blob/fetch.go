package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"lorad/internal/durable"
)

const (
	leastChunk = 4 << 20
	mostChunks = 1024 // the list of a blob's chunks stays below 32 KiB: it is part of the run's record
	maxSize    = 1 << 50
)

// ChunkSize is the length of the chunks of a blob of so many bytes; the last one may be shorter.
func ChunkSize(size int64) int64 {
	c := int64(leastChunk)
	for c*mostChunks < size {
		c *= 2
	}
	return c
}

// hash reads a blob that should have size bytes.
func hash(r io.Reader, size int64) (Info, error) {
	whole, step := sha256.New(), ChunkSize(size)
	info := Info{}
	for {
		part := sha256.New()
		n, err := io.CopyN(io.MultiWriter(whole, part), r, step)
		info.Size += n
		if n > 0 {
			info.Chunks = part.Sum(info.Chunks)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Info{}, err
		}
	}
	if len(info.Chunks) <= sha256.Size {
		info.Chunks = nil
	}
	info.Hash = Hash(whole.Sum(nil))
	return info, nil
}

// Part is a blob that is being fetched. It is safe for concurrent use.
type Part struct {
	store *Store
	want  Info
	sums  []byte // of every chunk
	f     *os.File

	mu      sync.Mutex
	missing map[int]bool
}

// Begin goes on with the blob that want names where an earlier process left off, or begins. Close it.
func (s *Store) Begin(want Info) (*Part, error) {
	if want.Size < 0 || want.Size > maxSize {
		return nil, fmt.Errorf("fetch blob %.12s: %d bytes is no size of a file", want.Hash, want.Size)
	}
	sums := want.Chunks
	if n := chunks(want.Size); n <= 1 && len(sums) == 0 {
		sums = want.Hash[:]
	} else if len(sums) != n*sha256.Size {
		return nil, fmt.Errorf("fetch blob %.12s: %d bytes of chunk hashes for %d chunks: the run was submitted by another lorad; submit the job again", want.Hash, len(sums), n)
	}
	f, err := os.OpenFile(s.path(want.Hash)+".part", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("fetch blob: %w", err)
	}
	p := &Part{store: s, want: want, sums: sums, f: f, missing: map[int]bool{}}
	if err := p.check(); err != nil {
		f.Close()
		return nil, fmt.Errorf("fetch blob %.12s: %w", want.Hash, err)
	}
	return p, nil
}

func chunks(size int64) int {
	step := ChunkSize(size)
	return int((size + step - 1) / step)
}

// check finds out which chunks are there.
func (p *Part) check() error {
	for i := range chunks(p.want.Size) {
		offset, length := p.Range(i)
		h := sha256.New()
		n, err := io.Copy(h, io.NewSectionReader(p.f, offset, length))
		if err != nil {
			return err
		}
		if n != length || !p.right(i, Hash(h.Sum(nil))) {
			p.missing[i] = true
		}
	}
	return nil
}

func (p *Part) right(i int, h Hash) bool {
	return h == Hash(p.sums[i*sha256.Size:(i+1)*sha256.Size])
}

// Range is where chunk i lies, in bytes.
func (p *Part) Range(i int) (offset, length int64) {
	step := ChunkSize(p.want.Size)
	offset = int64(i) * step
	return offset, min(step, p.want.Size-offset)
}

// Missing lists the chunks that are not there yet, ascending.
func (p *Part) Missing() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []int
	for i := range chunks(p.want.Size) {
		if p.missing[i] {
			list = append(list, i)
		}
	}
	return list
}

// Put stores chunk i if r delivers exactly it.
func (p *Part) Put(i int, r io.Reader) error {
	offset, length := p.Range(i)
	h := sha256.New()
	n, err := io.Copy(io.NewOffsetWriter(p.f, offset), io.TeeReader(io.LimitReader(r, length), h))
	switch {
	case err != nil:
		return fmt.Errorf("fetch blob %.12s: chunk %d: %w", p.want.Hash, i, err)
	case n < length:
		return fmt.Errorf("fetch blob %.12s: chunk %d: ends after %d of %d bytes", p.want.Hash, i, n, length)
	case !p.right(i, Hash(h.Sum(nil))):
		return fmt.Errorf("fetch blob %.12s: chunk %d: it is not what was promised (SHA-256)", p.want.Hash, i)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.missing, i)
	return nil
}

// Finish puts the complete blob in its place.
func (p *Part) Finish() error {
	if left := p.Missing(); len(left) > 0 {
		return fmt.Errorf("fetch blob %.12s: %d chunks are missing", p.want.Hash, len(left))
	}
	err := p.f.Truncate(p.want.Size)
	if err == nil {
		err = p.f.Sync()
	}
	if err == nil {
		err = os.Rename(p.f.Name(), p.store.path(p.want.Hash))
	}
	if err != nil {
		return fmt.Errorf("store blob %.12s: %w", p.want.Hash, err)
	}
	return durable.SyncDir(p.store.dir)
}

// Close keeps what is there for the next time.
func (p *Part) Close() error { return p.f.Close() }
