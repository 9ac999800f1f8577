package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
)

// maxHeader bounds the JSON header, as the reference implementation does.
const maxHeader = 100 << 20

const metadataKey = "__metadata__"

// File is an opened safetensors file. It keeps the header only; tensors are read when asked for.
// It is as safe for concurrent use as its io.ReaderAt.
type File struct {
	Metadata map[string]string // what stands under __metadata__, nil when absent

	r       io.ReaderAt
	closer  io.Closer // nil: whoever called Open closes r
	data    int64     // offset of the first tensor byte
	names   []string
	entries map[string]entry
}

// entry is one tensor's line of the header.
type entry struct {
	DType   DType   `json:"dtype"`
	Shape   []int   `json:"shape"`
	Offsets []int64 `json:"data_offsets"` // [begin, end) from the first tensor byte
}

// Open reads and checks the header of a file of size bytes. The tensors must tile the rest of the file exactly.
func Open(r io.ReaderAt, size int64) (*File, error) {
	header, err := readHeader(r, size)
	if err != nil {
		return nil, fmt.Errorf("open safetensors: header: %w", err)
	}
	f := &File{r: r, data: 8 + int64(len(header)), entries: map[string]entry{}}
	if err := f.parse(header); err != nil {
		return nil, fmt.Errorf("open safetensors: header: %w", err)
	}
	if err := f.checkTiling(size - f.data); err != nil {
		return nil, fmt.Errorf("open safetensors: data: %w", err)
	}
	return f, nil
}

func readHeader(r io.ReaderAt, size int64) ([]byte, error) {
	var length [8]byte
	if size < 8 {
		return nil, fmt.Errorf("the file has %d bytes, less than the 8 of the header length; it was cut short or is not safetensors", size)
	}
	if err := readFull(r, length[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader {
		return nil, fmt.Errorf("it claims %d bytes, over the limit of %d; the file is not safetensors or is damaged", n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, fmt.Errorf("it claims %d bytes but the file has %d; the file was cut short or is not safetensors", n, size)
	}
	header := make([]byte, n)
	return header, readFull(r, header, 8)
}

func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// parse walks the top-level object key by key, since a map would hide a name given twice.
func (f *File) parse(header []byte) error {
	if len(header) == 0 || header[0] != '{' {
		return errors.New("it does not begin with '{'")
	}
	dec := json.NewDecoder(bytes.NewReader(header))
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	for dec.More() {
		if err := f.parseMember(dec); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if rest := header[dec.InputOffset():]; len(bytes.Trim(rest, " \t\r\n")) > 0 {
		return errors.New("not JSON: text after the closing '}'")
	}
	return nil
}

func (f *File) parseMember(dec *json.Decoder) error {
	key, err := dec.Token()
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	name := key.(string) // inside an object the decoder yields nothing else here
	if name == metadataKey {
		if f.Metadata != nil {
			return errors.New("__metadata__ is given twice")
		}
		if err := json.Unmarshal(raw, &f.Metadata); err != nil {
			return fmt.Errorf("__metadata__ is not an object of strings: %w", err)
		}
		return nil
	}
	if _, dup := f.entries[name]; dup {
		return fmt.Errorf("tensor %q is given twice", name)
	}
	e, err := parseEntry(raw)
	if err != nil {
		return fmt.Errorf("tensor %q: %w", name, err)
	}
	f.entries[name] = e
	f.names = append(f.names, name)
	return nil
}

func parseEntry(raw []byte) (entry, error) {
	var e entry
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return e, fmt.Errorf("not a tensor entry: %w", err)
	}
	switch {
	case e.DType.Size() == 0:
		return e, fmt.Errorf("dtype %q is not supported", e.DType)
	case e.Shape == nil:
		return e, errors.New("it has no shape")
	case len(e.Offsets) != 2:
		return e, errors.New("data_offsets are not two numbers")
	}
	n, err := elements(e.Shape)
	if err != nil {
		return e, err
	}
	begin, end := e.Offsets[0], e.Offsets[1]
	if begin < 0 || end < begin {
		return e, fmt.Errorf("data_offsets %v are not a range", e.Offsets)
	}
	if want := n * int64(e.DType.Size()); end-begin != want {
		return e, fmt.Errorf("data_offsets %v hold %d bytes but %s %v takes %d", e.Offsets, end-begin, e.DType, e.Shape, want)
	}
	return e, nil
}

// checkTiling refuses overlaps, gaps and bytes that belong to no tensor: they hide data or damage.
func (f *File) checkTiling(size int64) error {
	slices.SortFunc(f.names, func(a, b string) int {
		x, y := f.entries[a].Offsets, f.entries[b].Offsets
		return slices.Compare(x, y)
	})
	at := int64(0)
	for _, name := range f.names {
		e := f.entries[name]
		if e.Offsets[1] > size {
			return fmt.Errorf("tensor %q ends at byte %d of %d; the file was cut short", name, e.Offsets[1], size)
		}
		if e.Offsets[0] != at {
			kind := "leaves a gap after"
			if e.Offsets[0] < at {
				kind = "overlaps"
			}
			return fmt.Errorf("tensor %q begins at byte %d: it %s the tensor before it, which ends at %d", name, e.Offsets[0], kind, at)
		}
		at = e.Offsets[1]
	}
	if at != size {
		return fmt.Errorf("%d bytes follow the last tensor and belong to none", size-at)
	}
	slices.Sort(f.names)
	return nil
}

// Names lists the tensors in alphabetical order.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Info gives a tensor's element type and shape; ok is false when there is no such tensor.
func (f *File) Info(name string) (d DType, shape []int, ok bool) {
	e, ok := f.entries[name]
	return e.DType, slices.Clone(e.Shape), ok
}

// F32 reads a tensor of F32, F16 or BF16 and widens it to f32, which is exact. A name that is not there is fs.ErrNotExist.
func (f *File) F32(name string) ([]float32, []int, error) {
	e, err := f.float(name)
	if err != nil {
		return nil, nil, err
	}
	n := (e.Offsets[1] - e.Offsets[0]) / int64(e.DType.Size())
	if n > math.MaxInt/4 {
		return nil, nil, fmt.Errorf("read tensor %q: %d values do not fit in memory", name, n)
	}
	out := make([]float32, n)
	if err := f.readF32(out, e, 0); err != nil {
		return nil, nil, fmt.Errorf("read tensor %q: %w", name, err)
	}
	return out, slices.Clone(e.Shape), nil
}

// ReadF32 is F32 of values first .. first+len(dst) only.
func (f *File) ReadF32(name string, first int, dst []float32) error {
	e, err := f.float(name)
	if err != nil {
		return err
	}
	n := (e.Offsets[1] - e.Offsets[0]) / int64(e.DType.Size())
	if first < 0 || int64(first) > n-int64(len(dst)) {
		return fmt.Errorf("read tensor %q: it has %d values, not %d from %d on", name, n, len(dst), first)
	}
	if err := f.readF32(dst, e, first); err != nil {
		return fmt.Errorf("read tensor %q: %w", name, err)
	}
	return nil
}

// float finds a tensor that widens to f32.
func (f *File) float(name string) (entry, error) {
	e, ok := f.entries[name]
	if !ok {
		return e, fmt.Errorf("read tensor %q: %w", name, fs.ErrNotExist)
	}
	if e.DType != F32 && e.DType != F16 && e.DType != BF16 {
		return e, fmt.Errorf("read tensor %q: dtype %s does not widen to f32 (supported: F32, F16, BF16)", name, e.DType)
	}
	return e, nil
}

// Reader reads a tensor's bytes as they are stored.
func (f *File) Reader(name string) (io.Reader, error) {
	e, ok := f.entries[name]
	if !ok {
		return nil, fmt.Errorf("read tensor %q: %w", name, fs.ErrNotExist)
	}
	return io.NewSectionReader(f.r, f.data+e.Offsets[0], e.Offsets[1]-e.Offsets[0]), nil
}

// maxRaw bounds what Raw reads at once: as many bytes as any tensor of a model has.
const maxRaw = 1 << 34

// Raw reads a tensor as it is stored, little-endian; Widen makes numbers of it. A name that is not there is fs.ErrNotExist.
func (f *File) Raw(name string) ([]byte, DType, []int, error) {
	e, ok := f.entries[name]
	if !ok {
		return nil, "", nil, fmt.Errorf("read tensor %q: %w", name, fs.ErrNotExist)
	}
	n := e.Offsets[1] - e.Offsets[0]
	if n > maxRaw || n > math.MaxInt {
		return nil, "", nil, fmt.Errorf("read tensor %q: %d bytes do not fit in memory", name, n)
	}
	out := make([]byte, n)
	if err := readFull(f.r, out, f.data+e.Offsets[0]); err != nil {
		return nil, "", nil, fmt.Errorf("read tensor %q: %w", name, err)
	}
	return out, e.DType, slices.Clone(e.Shape), nil
}

// Bytes is Raw for a tensor that must be U8: packed weights and the JSON that some formats keep beside them.
func (f *File) Bytes(name string) ([]byte, []int, error) {
	if d, _, ok := f.Info(name); ok && d != U8 {
		return nil, nil, fmt.Errorf("read tensor %q: dtype %s, want U8", name, d)
	}
	b, _, shape, err := f.Raw(name)
	return b, shape, err
}

// readF32 goes through a small buffer, so that the stored bytes are never in memory beside the widened ones.
func (f *File) readF32(out []float32, e entry, first int) error {
	const chunk = 1 << 16 // elements
	size := e.DType.Size()
	buf := make([]byte, min(chunk, len(out))*size)
	off := f.data + e.Offsets[0] + int64(first)*int64(size)
	for len(out) > 0 {
		n := min(chunk, len(out))
		if err := readFull(f.r, buf[:n*size], off); err != nil {
			return err
		}
		Widen(out[:n], buf, e.DType)
		out, off = out[n:], off+int64(n*size)
	}
	return nil
}
