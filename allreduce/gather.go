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

// passBlobs sends this member's blob to everyone and takes theirs.
func (g *Group) passBlobs(op OpID, blobs [][]byte) error {
	n := len(blobs)
	hd := Header{Type: Data, Phase: Blobs, Op: op, Plan: crc32.Checksum([]byte{byte(n)}, castagnoli)}
	for _, p := range g.peers {
		if err := p.write(hd, blobs[g.cfg.Rank]); err != nil {
			return g.writeFailed(p, err)
		}
	}
	for _, p := range g.peers {
		k, err := g.receive(p, hd)
		if err != nil {
			return err
		}
		if len(k.payload) > MaxBlob {
			p.release(k)
			return g.abort(p.id, ErrTooLarge)
		}
		blobs[p.rank] = bytes.Clone(k.payload)
		p.release(k)
	}
	return nil
}

// The members compare their links when the group begins, and after so many reductions: 8, 32, 128, ... and then every
// lastCompare. The counts are the same on all of them.
const (
	firstCompare = 8
	lastCompare  = 4096
)

// Compare tells the others how fast this member's links are and hears how fast theirs are. The way and the shares of
// the reductions that follow are derived from what all have said.
func (g *Group) Compare(ctx context.Context, op OpID) error {
	end, err := g.begin(ctx, op, Blobs)
	if err != nil {
		return err
	}
	defer end()
	return g.compareNow(op)
}

// compare does so in an operation, when its time has come.
func (g *Group) compare(op OpID) error {
	if g.entered++; g.entered < g.compares {
		return nil
	}
	g.compares += min(3*g.compares, lastCompare)
	return g.compareNow(op)
}

func (g *Group) compareNow(op OpID) error {
	t, blobs := newTable(g.Size()), make([][]byte, g.Size())
	rtt := make([]time.Duration, g.Size())
	for _, p := range g.peers {
		if l, ok := p.link.(interface{ RTT() time.Duration }); ok {
			rtt[p.rank] = l.RTT()
		}
	}
	blobs[g.cfg.Rank] = t.report(g.meter.rate(), rtt)
	if err := g.passBlobs(op, blobs); err != nil {
		return err
	}
	for i, b := range blobs {
		if err := t.enter(i, b); err != nil {
			return g.abort(g.cfg.Members[i], err)
		}
	}
	t.complete()
	g.table = t
	return nil
}
