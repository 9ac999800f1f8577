package data

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// A page of any compression unpacks to what was packed, and one that holds more than its header says is refused before it takes the memory.
func TestUnpack(t *testing.T) {
	plain := bytes.Repeat([]byte("0123456789abcdef"), 2<<20) // 32 MiB
	for _, codec := range []format.CompressionCodec{format.Snappy, format.Gzip, format.Brotli, format.Zstd, format.Lz4Raw} {
		packed, err := parquet.LookupCompressionCodec(codec).Encode(nil, plain)
		if err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		c := column{codec: codec}
		if out, err := c.unpack(packed, len(plain)); err != nil || !bytes.Equal(out, plain) {
			t.Errorf("%s: %d bytes, %v", codec, len(out), err)
		}
		for name, b := range map[string][]byte{"a bomb": packed, "a damaged page": append(bytes.Clone(packed[:len(packed)/2]), 0xff, 0xff, 0xff)} {
			before := allocated()
			if _, err := c.unpack(b, 1000); err == nil {
				t.Errorf("%s: %s is unpacked", codec, name)
			}
			if took := allocated() - before; took > 17<<20 {
				t.Errorf("%s: %s takes %d MiB", codec, name, took>>20)
			}
		}
	}
	if _, err := (column{codec: format.LZO}).unpack(nil, 1); err == nil {
		t.Error("LZO is unpacked")
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
