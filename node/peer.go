package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	pb "google.golang.org/protobuf/proto"

	"lorad/node/blob"
	"lorad/proto"
)

const chunkSize = 1 << 20

// FetchBlob serves an input file to a peer. Part of proto.PeerServer.
func (n *Node) FetchBlob(req *proto.FetchBlobRequest, out proto.Peer_FetchBlobServer) error {
	h, err := blob.HashOf(req.Sha256)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	f, err := n.blobs.Open(h)
	if errors.Is(err, blob.ErrMissing) {
		return status.Error(codes.NotFound, err.Error())
	}
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	defer f.Close()
	if err := skip(f, int64(req.Offset)); err != nil {
		return status.Errorf(codes.OutOfRange, "blob %.12s: offset %d: %v", h, req.Offset, err)
	}
	var r io.Reader = f
	if req.Length > 0 {
		r = io.LimitReader(f, int64(req.Length))
	}
	_, err = io.CopyBuffer(onlyWriter{chunkWriter{out.Send}}, r, make([]byte, chunkSize))
	return err
}

func skip(f fs.File, n int64) error {
	if s, ok := f.(io.Seeker); ok && n >= 0 {
		_, err := s.Seek(n, io.SeekStart)
		return err
	}
	_, err := io.CopyN(io.Discard, f, n)
	return err
}

// FetchState serves the replica of a run at an exact step to a member that is behind: the records that are not in the
// ledger yet, so that they do not die with this node while the steps live on, and then the state. Part of proto.PeerServer.
func (n *Node) FetchState(req *proto.FetchStateRequest, out proto.Peer_FetchStateServer) error {
	w := n.worker(req.Run)
	if w == nil {
		return status.Errorf(codes.NotFound, "run %s: no replica on this node", req.Run)
	}
	rep := w.currentReplica()
	if rep == nil {
		return status.Errorf(codes.Unavailable, "run %s: the replica is still being made", req.Run)
	}
	// A copy first: whoever fetches may be slow, or dead without anybody knowing, and the replica must not wait for it.
	state := bytes.NewBuffer(make([]byte, 0, rep.Size()))
	records := w.reports.unreported(req.Step)
	if err := rep.EncodeAt(state, req.Step); err != nil {
		return status.Error(codes.FailedPrecondition, fmt.Sprintf("run %s: %v", req.Run, err))
	}
	n.cfg.Log.Info("serves the state", "run", req.Run, "step", req.Step, "bytes", state.Len())
	if err := writeRecords(chunkWriter{out.Send}, records); err != nil {
		return err
	}
	_, err := chunkWriter{out.Send}.Write(state.Bytes())
	return err
}

// maxRecords bounds the records that come with a state, in bytes: a lease of a million steps, never reported.
const maxRecords = 256 << 20

// writeRecords sends a length (u32, little endian) and a proto.Report with the records.
func writeRecords(w io.Writer, steps []*proto.StepRecord) error {
	b, err := pb.Marshal(&proto.Report{Steps: steps})
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readRecords(r io.Reader) ([]*proto.StepRecord, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read step records: %w", err)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxRecords {
		return nil, fmt.Errorf("read step records: %d bytes: too long", n)
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(b) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	var p proto.Report
	if err == nil {
		err = pb.Unmarshal(b, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("read step records: %w", err)
	}
	return p.Steps, nil
}

// chunkWriter turns an io.Writer into a stream of chunks.
type chunkWriter struct {
	send func(*proto.Chunk) error
}

func (w chunkWriter) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		end := min(sent+chunkSize, len(p))
		if err := w.send(&proto.Chunk{Data: p[sent:end]}); err != nil {
			return sent, err
		}
		sent = end
	}
	return len(p), nil
}

// onlyWriter hides the reader's WriteTo from io.Copy, so that the buffer's size is the chunk's.
type onlyWriter struct{ io.Writer }
