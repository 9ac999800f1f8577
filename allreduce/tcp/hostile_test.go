package tcp

import (
	"testing"

	"lorad/internal/hostile"
)

func TestHostileHellos(t *testing.T) {
	seeds := [][]byte{hello{1, 2, 3, "from", "to"}.append(nil), hello{1 << 63, 1, 0, "a", "b"}.append(nil)}
	hostile.Test(t, hostile.Parser{Seeds: seeds, Parse: tryHello, Small: 50_000, Memory: func(n int) int { return 4096 + 8*n }})
}
