package allreduce

import (
	"bytes"
	"testing"

	"lorad/internal/hostile"
)

func TestHostileFrames(t *testing.T) {
	seeds := [][]byte{frameOf(sampleHeader, []byte("payload")), frameOf(Header{Type: Bye}, nil), frameOf(Header{Type: Beat}, make([]byte, 64))}
	hostile.Test(t, hostile.Parser{Seeds: seeds, Parse: tryReadFrame, Small: 50_000, Memory: func(n int) int { return 4096 + 8*n }})
}

func TestHostileSegments(t *testing.T) {
	seeds := [][]byte{{0, 0, 0}, {4, 1, 2, 3, 4}, {floatForm + 31, 1, 2, 3, 4, 5, 6}, {rawFloats, 1, 2, 3, 4, 5, 6}, bytes.Repeat([]byte{7, 1, 2}, 300)}
	parse := func(t testing.TB, b []byte) { tryDecodeSegment(t, b, uint8(len(b))) }
	hostile.Test(t, hostile.Parser{Seeds: seeds, Parse: parse, Small: 5_000, Memory: func(n int) int { return 128<<10 + 16*n }})
}
