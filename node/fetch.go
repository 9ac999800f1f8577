package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"lorad/node/blob"
	"lorad/proto"
)

// donors is how many peers are asked for chunks of one file at the same time.
const donors = 3

// stallTimeout is how long a peer may deliver nothing of a chunk.
const stallTimeout = 15 * time.Second

// fetchInputs brings every file of the run onto this node, from the home node first, else from whoever has it.
func (n *Node) fetchInputs(ctx context.Context, spec *proto.Spec) error {
	for _, f := range spec.Files {
		h, err := blob.HashOf(f.Sha256)
		if err != nil {
			return err
		}
		if n.blobs.Has(h) {
			continue
		}
		want := blob.Info{Hash: h, Size: int64(f.Size), Chunks: f.ChunkSha256}
		if err := n.fetchInput(ctx, spec.HomeNode, want); err != nil {
			return fmt.Errorf("fetch %s: %w", f.Name, err)
		}
	}
	return nil
}

// sources lists the other nodes, the home node first.
func (n *Node) sources(home string) []string {
	var others []string
	for _, p := range n.cfg.Control.Nodes() {
		switch {
		case p.Id == n.cfg.ID || p.Witness:
		case p.Id == home:
			others = append([]string{home}, others...)
		default:
			others = append(others, p.Id)
		}
	}
	return others
}

// fetchInput fetches the chunks that are missing from a few peers at a time. A peer that fails is not asked again; the
// others do what it was to deliver.
func (n *Node) fetchInput(ctx context.Context, home string, want blob.Info) error {
	part, err := n.blobs.Begin(want)
	if err != nil {
		return err
	}
	defer part.Close()
	q := &chunkQueue{part: part, good: n.sources(home)}
	for q.again() {
		var all sync.WaitGroup
		for range donors {
			all.Go(func() {
				for id := q.nextPeer(); id != ""; id = q.nextPeer() {
					q.answered(id, n.fetchFrom(ctx, id, want, q))
				}
			})
		}
		all.Wait()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(part.Missing()) == 0:
		return part.Finish()
	case len(q.failures) == 0:
		return blob.ErrMissing
	}
	return errors.Join(q.failures...)
}

// chunkQueue is the work that the peers of one fetch share.
type chunkQueue struct {
	part *blob.Part

	mu       sync.Mutex
	missing  []int
	peers    []string // not asked yet in this round
	good     []string // did not fail in the last one
	failures []error
}

// again begins a round if anything is missing and a peer is left. In each round a peer fails, or it is the last one.
func (q *chunkQueue) again() bool {
	q.missing = q.part.Missing()
	q.peers, q.good = q.good, nil
	return len(q.missing) > 0 && len(q.peers) > 0
}

// nextPeer is a peer to ask, or "" if there is none left or nothing to ask for.
func (q *chunkQueue) nextPeer() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.peers) == 0 || len(q.missing) == 0 {
		return ""
	}
	id := q.peers[0]
	q.peers = q.peers[1:]
	return id
}

func (q *chunkQueue) take() (chunk int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.missing) == 0 {
		return 0, false
	}
	chunk = q.missing[0]
	q.missing = q.missing[1:]
	return chunk, true
}

func (q *chunkQueue) giveBack(chunk int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.missing = append(q.missing, chunk)
}

func (q *chunkQueue) answered(id string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.failures = append(q.failures, fmt.Errorf("from %s: %w", id, err))
		return
	}
	q.good = append(q.good, id)
}

// fetchFrom takes chunks from one peer until there are none left or it fails.
func (n *Node) fetchFrom(ctx context.Context, id string, want blob.Info, q *chunkQueue) error {
	peer, err := n.cfg.Peers.Peer(ctx, id)
	if err != nil {
		return err
	}
	for {
		chunk, ok := q.take()
		if !ok {
			return nil
		}
		if err := fetchChunk(ctx, peer, want.Hash, q.part, chunk); err != nil {
			q.giveBack(chunk)
			return err
		}
	}
}

func fetchChunk(ctx context.Context, peer proto.PeerClient, h blob.Hash, part *blob.Part, chunk int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	offset, length := part.Range(chunk)
	stream, err := peer.FetchBlob(ctx, &proto.FetchBlobRequest{Sha256: h[:], Offset: uint64(offset), Length: uint64(length)})
	if err != nil {
		return err
	}
	stalled := time.AfterFunc(stallTimeout, cancel) // a peer may hang with its connection open
	defer stalled.Stop()
	return part.Put(chunk, &chunkReader{recv: func() (*proto.Chunk, error) {
		c, err := stream.Recv()
		stalled.Reset(stallTimeout)
		return c, err
	}})
}

// chunkReader turns a stream of chunks into an io.Reader.
type chunkReader struct {
	recv func() (*proto.Chunk, error)
	rest []byte
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		c, err := r.recv()
		if err != nil {
			return 0, err // io.EOF at the end of the stream
		}
		r.rest = c.Data
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

var _ io.Reader = (*chunkReader)(nil)
