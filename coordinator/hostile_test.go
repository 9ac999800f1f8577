package coordinator

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	pb "google.golang.org/protobuf/proto"

	"lorad/ca"
	"lorad/internal/hostile"
	"lorad/proto"
)

func marshal(t testing.TB, m pb.Message) []byte {
	t.Helper()
	b, err := pb.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entries are commands as they come off the log.
func entries(t testing.TB) (all [][]byte) {
	spec := &proto.Spec{Run: "run-1", Steps: 10, MicroBatches: 2, HomeNode: "a", Files: []*proto.File{{Name: "data/0.jsonl", Sha256: make([]byte, 32)}}}
	lease := &proto.Lease{Generation: 1, Members: []string{"a"}, From: 1, Until: 5}
	step := &proto.StepRecord{Step: 1, Loss: 1, Digest: 3}
	for _, c := range []*proto.Command{
		{Do: &proto.Command_PutCluster{PutCluster: &proto.PutCluster{Cluster: &proto.Cluster{Id: "c", SealedCaKey: []byte("x")}}}},
		{Do: &proto.Command_PutNode{PutNode: &proto.PutNode{Node: &proto.Node{Id: "a", Name: "a", Addr: "h:1", Voter: true}}}},
		{Do: &proto.Command_SubmitRun{SubmitRun: &proto.SubmitRun{Spec: spec}}},
		{Do: &proto.Command_GrantLease{GrantLease: &proto.GrantLease{Run: "run-1", Lease: lease}}},
		{Do: &proto.Command_Report{Report: &proto.Report{Run: "run-1", Node: "a", Generation: 1, Steps: []*proto.StepRecord{step}}}},
		{Do: &proto.Command_PutToken{PutToken: &proto.PutToken{Token: &proto.Token{Id: "t", SecretSha256: make([]byte, 32), UsesLeft: 1, Role: "voter"}}}},
		{Do: &proto.Command_UseToken{UseToken: &proto.UseToken{Id: "t", SecretSha256: make([]byte, 32), Node: &proto.Node{Id: "b", Addr: "h:2"}}}},
		{Do: &proto.Command_StopRun{StopRun: &proto.StopRun{Run: "run-1"}}},
		{Do: &proto.Command_RemoveNode{RemoveNode: &proto.RemoveNode{Id: "a"}}},
	} {
		all = append(all, marshal(t, c))
	}
	return all
}

// tryEntry applies a whole log whose middle entry is data, and takes a snapshot of what came of it.
func tryEntry(t testing.TB, data []byte) {
	f := newFSM()
	log := entries(t)
	log = append(append(append([][]byte{}, log[:4]...), data), log[4:]...)
	for i, b := range log {
		f.Apply(&raft.Log{Index: uint64(i), Data: b})
	}
	b, err := snapshotOf(f)
	if err != nil {
		t.Errorf("no snapshot of it: %v", err)
		return
	}
	if err := newFSM().Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
		t.Errorf("its own snapshot is not restored: %v", err)
	}
}

// snapshotOf is what would be in a snapshot's file.
func snapshotOf(f *fsm) ([]byte, error) {
	s, err := f.Snapshot()
	if err != nil {
		return nil, err
	}
	return s.(snapshot).image.Append(binary.BigEndian.AppendUint64(nil, f.index))
}

func FuzzLogEntry(f *testing.F) {
	for _, b := range entries(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) { tryEntry(t, data) })
}

func TestHostileLogEntries(t *testing.T) {
	hostile.Test(t, hostile.Parser{Seeds: entries(t), Parse: tryEntry, Small: 5_000, Memory: func(n int) int { return 1<<20 + 100*n }})
}

func trySnapshot(_ testing.TB, data []byte) {
	f := newFSM()
	if f.Restore(io.NopCloser(bytes.NewReader(data))) == nil {
		f.view()
		snapshotOf(f)
	}
}

func snapshots(t testing.TB) [][]byte {
	t.Helper()
	f := newFSM()
	for i, b := range entries(t) {
		f.Apply(&raft.Log{Index: uint64(i), Data: b})
	}
	b, err := snapshotOf(f)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{b, binary.BigEndian.AppendUint64(nil, 7)}
}

func FuzzSnapshot(f *testing.F) {
	for _, b := range snapshots(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) { trySnapshot(t, data) })
}

func TestHostileSnapshots(t *testing.T) {
	hostile.Test(t, hostile.Parser{Seeds: snapshots(t), Parse: trySnapshot, Small: 10_000, Memory: func(n int) int { return 1<<20 + 100*n }})
}

// joinRequest is a request that is good but for the joiner's clock, so that nobody is called back.
func joinRequest(t testing.TB, b *box) []byte {
	t.Helper()
	tok, err := ca.ParseJoinToken(b.token(1, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	_, csr, err := ca.NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	return marshal(t, &proto.JoinRequest{
		TokenId: tok.ID(), TokenSecret: tok.Secret(), CsrDer: csr, Node: withID(facts("x"), ca.NewNodeID(), "127.0.0.1:1"),
		OldCertDer: b.creds.Identity.CertDER(), NowUnixMs: 1,
	})
}

func (b *box) tryJoin(t testing.TB, data []byte) {
	req := &proto.JoinRequest{}
	if pb.Unmarshal(data, req) != nil {
		return
	}
	req.NowUnixMs = 1
	if _, err := b.enrol(b.Coordinator.ctx, req); err == nil {
		t.Error("a damaged request was let in")
	}
}

func FuzzJoin(f *testing.F) {
	b := first(f)
	if err := b.Ready(b.ctx(enough)); err != nil {
		f.Fatal(err)
	}
	f.Add(joinRequest(f, b))
	f.Fuzz(func(t *testing.T, data []byte) { b.tryJoin(t, data) })
}

func TestHostileJoins(t *testing.T) {
	b := first(t)
	if err := b.Ready(b.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	hostile.Test(t, hostile.Parser{Seeds: [][]byte{joinRequest(t, b)}, Parse: b.tryJoin, Small: 1_000, Memory: func(n int) int { return 2<<20 + 200*n }})
}
