package allreduce

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"time"
)

// MaxBlob bounds one member's contribution to AllGather, in bytes.
const MaxBlob = 64 << 10

// AllGather collects a small blob from every member, indexed by rank; lengths may differ.
func (g *Group) AllGather(ctx context.Context, op OpID, blob []byte) ([][]byte, error) {
	if len(blob) > MaxBlob {
		return nil, fmt.Errorf("all-gather %v: blob of %d bytes: at most %d", op, len(blob), MaxBlob)
	}
	end, err := g.begin(ctx, op, Blobs)
	if err != nil {
		return nil, err
	}
	defer end()
	blobs := make([][]byte, g.Size())
	blobs[g.cfg.Rank] = bytes.Clone(blob)
	if _, err := g.measure(time.Now(), func() error { return g.passBlobs(op, blobs) }); err != nil {
		return nil, err
	}
	return blobs, nil
}

// passBlobs sends blobs round the ring: in hop h of N-1, rank r sends blob r-h and receives blob r-h-1 (mod N).
func (g *Group) passBlobs(op OpID, blobs [][]byte) error {
	n := len(blobs)
	for h := range n - 1 {
		hd := Header{Type: Data, Phase: Blobs, Op: op, Hop: uint32(h), Plan: crc32.Checksum([]byte{byte(n)}, castagnoli)}
		if err := g.next.write(hd, blobs[(g.cfg.Rank+n-h)%n]); err != nil {
			return g.writeFailed(g.next, err)
		}
		k, err := g.receive(hd)
		if err != nil {
			return err
		}
		if len(k.payload) > MaxBlob {
			g.prev.release(k)
			return g.abort(g.prev.id, ErrTooLarge)
		}
		blobs[(g.cfg.Rank+2*n-h-1)%n] = bytes.Clone(k.payload)
		g.prev.release(k)
	}
	return nil
}
