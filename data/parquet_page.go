package data

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// column is what it takes to understand the pages of one.
type column struct {
	repetition, definition int // bits of a level
	codec                  format.CompressionCodec
}

func columnOf(file *parquet.File, m *format.ColumnMetaData) (column, error) {
	leaf, ok := file.Schema().Lookup(m.PathInSchema...)
	if !ok {
		return column{}, fmt.Errorf("the schema has no column %q", m.PathInSchema)
	}
	return column{bits.Len(uint(leaf.MaxRepetitionLevel)), bits.Len(uint(leaf.MaxDefinitionLevel)), m.Codec}, nil
}

// plainDictionary is RLEDictionary in files of old writers.
const plainDictionary format.Encoding = 2

var errRuns = errors.New("a page holds more values than it names")

// page checks that what is inside a page unpacks to no more than its header says: to so many bytes, and its runs to so many values. A run of a billion
// values takes five bytes, and the library unpacks it before it looks at how many there should be.
func (c column) page(h *format.PageHeader, b []byte) error {
	size := int(h.UncompressedPageSize)
	var err error
	switch h.Type {
	case format.DataPage:
		v := &h.DataPageHeader.V
		if b, err = c.unpack(b, size); err != nil {
			return err
		}
		for _, width := range []int{c.repetition, c.definition} {
			if b, err = levels(b, width, int(v.NumValues)); err != nil {
				return err
			}
		}
		return values(b, v.Encoding, int(v.NumValues))
	case format.DataPageV2:
		v := &h.DataPageHeaderV2.V
		rep, def := int(v.RepetitionLevelsByteLength), int(v.DefinitionLevelsByteLength)
		if rep < 0 || def < 0 || rep > len(b) || def > len(b)-rep {
			return errors.New("a page's levels are longer than the page")
		}
		if err := errors.Join(runs(b[:rep], c.repetition, int(v.NumValues)), runs(b[rep:rep+def], c.definition, int(v.NumValues))); err != nil {
			return err
		}
		if b = b[rep+def:]; !v.IsCompressed.Valid || v.IsCompressed.V {
			if b, err = c.unpack(b, max(0, size-rep-def)); err != nil {
				return err
			}
		}
		return values(b, v.Encoding, int(v.NumValues))
	}
	_, err = c.unpack(b, size)
	return err
}

// unpack is the page without its compression, which must not be more than the header's size. The library's own decoders unpack everything before
// anybody can look at it, and its lz4 takes twice the memory again for as long as damaged bytes do not unpack.
func (c column) unpack(b []byte, size int) (out []byte, err error) {
	switch c.codec {
	case format.Uncompressed:
		return b, nil
	case format.Snappy:
		if n, k := binary.Uvarint(b); k <= 0 || n > uint64(size) {
			return nil, tooLarge(size)
		}
		return parquet.Snappy.Decode(nil, b)
	case format.Lz4Raw:
		out = make([]byte, min(size, 255*len(b)+64)) // lz4 makes no more of a byte
		n, err := lz4.UncompressBlock(b, out)
		return out[:max(0, n)], err
	case format.Gzip:
		return drain(size, func() (io.Reader, error) { return gzip.NewReader(bytes.NewReader(b)) })
	case format.Brotli:
		return drain(size, func() (io.Reader, error) { return brotli.NewReader(bytes.NewReader(b)), nil })
	case format.Zstd:
		return unzstd(b, size)
	}
	return nil, fmt.Errorf("compression %s is not known", c.codec)
}

// unzstd also bounds the memory of the window, which a frame chooses for itself.
func unzstd(b []byte, size int) ([]byte, error) {
	window := max(8<<20, 2*uint64(size))
	return drain(size, func() (io.Reader, error) {
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	})
}

// drain reads it all, if that is no more than size.
func drain(size int, open func() (io.Reader, error)) ([]byte, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(size)+1))
	if err == nil && len(out) > size {
		err = tooLarge(size)
	}
	return out, err
}

func tooLarge(size int) error {
	return fmt.Errorf("a page unpacks to more than the %d bytes it names", size)
}

// levels skips the levels in front of a page of the first version, and checks them.
func levels(b []byte, width, count int) ([]byte, error) {
	if width == 0 {
		return b, nil
	}
	if len(b) < 4 {
		return nil, errRuns
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if b = b[4:]; n > uint64(len(b)) {
		return nil, errRuns
	}
	return b[n:], runs(b[:n], width, count)
}

// values checks values whose encoding says itself how many there are.
func values(b []byte, e format.Encoding, count int) error {
	switch e {
	case plainDictionary, format.RLEDictionary:
		if len(b) > 0 {
			return runs(b[1:], int(b[0]), count)
		}
	case format.RLE:
		_, err := levels(b, 1, count)
		return err
	case format.DeltaBinaryPacked, format.DeltaLengthByteArray, format.DeltaByteArray:
		block, k := binary.Uvarint(b)
		minis, l := binary.Uvarint(b[max(0, k):])
		total, m := binary.Uvarint(b[max(0, k)+max(0, l):])
		if k <= 0 || l <= 0 || m <= 0 || total > uint64(count) || block > 1<<20 || minis > block {
			return errRuns
		}
	}
	return nil
}

// runs walks the hybrid of runs and packed groups of eight: a varint, whose last bit tells which, then the value or the groups.
func runs(b []byte, width, count int) error {
	if width > 32 {
		return errRuns
	}
	for seen := uint64(0); len(b) > 0; {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > 1<<33 {
			return errRuns
		}
		b = b[k:]
		used := uint64(width+7) / 8
		if n&1 == 1 {
			used, n = n/2*uint64(width), n/2*8
		} else {
			n /= 2
		}
		if seen += n; seen > uint64(count)+512 { // groups are filled up
			return errRuns
		}
		b = b[min(used, uint64(len(b))):]
	}
	return nil
}
