package transport

import (
	"bytes"
	"testing"

	"lorad/internal/hostile"
)

// tryPackets reads gossip packets until there is something wrong with one.
func tryPackets(t testing.TB, data []byte) {
	r := bytes.NewReader(data)
	for total := 0; ; {
		p, err := readPacket(r)
		if err != nil {
			return
		}
		if total += 4 + len(p); total > len(data) || len(p) < 1 || len(p) > maxPacket {
			t.Errorf("a packet of %d bytes out of %d", len(p), len(data))
		}
	}
}

func packets() [][]byte {
	return [][]byte{appendPacket(appendPacket(nil, []byte("one")), []byte("another one")), {0, 1, 0, 0}, appendPacket(nil, make([]byte, 1400))}
}

func FuzzGossipPackets(f *testing.F) {
	for _, s := range packets() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) { tryPackets(t, data) })
}

func TestHostileGossipPackets(t *testing.T) {
	hostile.Test(t, hostile.Parser{Seeds: packets(), Parse: tryPackets, Small: 50_000, Memory: func(n int) int { return maxPacket + 8*n }})
}
