package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"lorad/node/blob"
	"lorad/proto"
)

// cluster is the other nodes, as a node that fetches sees them.
type cluster struct {
	Control
	nodes []*proto.Node
	peers map[string]*donor
}

func (c *cluster) Nodes() []*proto.Node { return c.nodes }

func (c *cluster) Peer(_ context.Context, id string) (proto.PeerClient, error) {
	return c.peers[id], nil
}

// donor serves a file, or what is wrong with it.
type donor struct {
	proto.PeerClient
	data   []byte
	chunks int // that it serves before it dies; -1 = all
	served atomic.Int64
}

func (d *donor) FetchBlob(_ context.Context, req *proto.FetchBlobRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[proto.Chunk], error) {
	if n := d.served.Add(1); d.chunks >= 0 && n > int64(d.chunks) {
		return nil, errors.New("connection reset")
	}
	return &delivery{data: d.data[req.Offset : req.Offset+req.Length]}, nil
}

type delivery struct {
	grpc.ClientStream
	data []byte
}

func (d *delivery) Recv() (*proto.Chunk, error) {
	if len(d.data) == 0 {
		return nil, io.EOF
	}
	n := min(len(d.data), chunkSize)
	c := &proto.Chunk{Data: d.data[:n]}
	d.data = d.data[n:]
	return c, nil
}

// fetching is a node that wants a file of several chunks from donors.
func fetching(t *testing.T, donors map[string]*donor) (*Node, *cluster, *proto.Spec, []byte) {
	t.Helper()
	data := make([]byte, 23<<20)
	rand.NewChaCha8([32]byte{7}).Read(data)
	path := filepath.Join(t.TempDir(), "weights")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	home, _ := blob.Open(filepath.Join(t.TempDir(), "home"))
	info, err := home.AddFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{peers: donors}
	for _, id := range []string{"self", "a", "b", "c"} {
		c.nodes = append(c.nodes, &proto.Node{Id: id})
	}
	for _, d := range donors {
		if d.data == nil {
			d.data = data
		}
	}
	n, err := New(Config{ID: "self", Dir: t.TempDir(), Control: c, Peers: c, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	file := &proto.File{Name: "base/model.safetensors", Sha256: info.Hash[:], Size: uint64(info.Size), ChunkSha256: info.Chunks}
	return n, c, &proto.Spec{HomeNode: "a", Files: []*proto.File{file}}, data
}

// The donor dies with half a file, another one lies: the rest comes from the third, and nothing that is here is fetched
// again.
func TestDonorsDieAndLie(t *testing.T) {
	liar := &donor{data: make([]byte, 23<<20), chunks: -1}
	n, c, spec, data := fetching(t, map[string]*donor{"a": {chunks: 2}, "b": liar, "c": {chunks: -1}})
	if err := n.fetchInputs(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	got, err := fs.ReadFile(n.view(spec.Files), "base/model.safetensors")
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if liar.served.Load() != 1 {
		t.Errorf("the liar was asked %d times", liar.served.Load())
	}
	if a, third := c.peers["a"].served.Load(), c.peers["c"].served.Load(); min(a, 2)+third != 6 {
		t.Errorf("%d and %d chunks were served of 6", min(a, 2), third)
	}
}

// All donors die; the process that comes after fetches what is missing.
func TestFetchSurvivesTheProcess(t *testing.T) {
	n, c, spec, _ := fetching(t, map[string]*donor{"a": {chunks: 2}, "b": {chunks: 0}, "c": {chunks: 1}})
	if err := n.fetchInputs(t.Context(), spec); err == nil {
		t.Fatal("fetched from the dead")
	}
	revived := &donor{data: c.peers["a"].data, chunks: -1}
	c.peers = map[string]*donor{"a": revived, "b": {}, "c": {}}
	again, err := New(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.fetchInputs(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if revived.served.Load() != 3 {
		t.Errorf("%d chunks were fetched again, 3 were missing", revived.served.Load())
	}
}
