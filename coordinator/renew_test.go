package coordinator

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator/state"
	"lorad/proto"
	"lorad/transport"
)

// openFor starts a node whose authority signs certificates of a given life.
func openFor(t testing.TB, dir string, creds *Credentials, life time.Duration) *box {
	t.Helper()
	mux, err := transport.Listen("127.0.0.1:0", creds.Identity)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, dir: dir, mux: mux, dial: transport.NewDialer(creds.Identity)}
	b.Coordinator, err = Open(Config{
		Dir: dir, Credentials: creds, Node: facts("box"), Mux: mux, Dialer: b.dial, Prepare: prepare, Log: slog.New(slog.DiscardHandler),
		CertLifetime: life,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.ctl = b.Control()
	t.Cleanup(b.close)
	return b
}

// worker lets a node in that trains only.
func (b *box) worker(life time.Duration) *box {
	b.t.Helper()
	tok, err := b.ctl.CreateToken(b.ctx(enough), &proto.CreateTokenRequest{Role: state.Worker})
	if err != nil {
		b.t.Fatal(err)
	}
	dir := b.t.TempDir()
	creds, err := Join(b.ctx(enough), dir, b.mux.Advertise(), tok.Token, bound(b.t), facts("box"))
	if err != nil {
		b.t.Fatal(err)
	}
	return openFor(b.t, dir, creds, life)
}

// TestCertificatesAreRenewedWhileRunning: a voter's by itself and a worker's by a voter, both before they end; the new
// one is shown, and is on the disk.
func TestCertificatesAreRenewedWhileRunning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	creds, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	const life = 3 * time.Second
	short, err := (&box{Coordinator: &Coordinator{creds: creds, fsm: newFSM(), cfg: Config{CertLifetime: life}}}).authority()
	if err != nil {
		t.Fatal(err)
	}
	if err := creds.selfSign(dir, short, ca.Voter); err != nil {
		t.Fatal(err)
	}
	a := openFor(t, dir, creds, life)
	w := a.worker(life)
	for _, b := range []*box{a, w} {
		first := b.creds.Identity.NotAfter()
		eventually(t, "a certificate renewed before it ended, of a "+string(b.creds.Identity.Self().Role), func() bool { // on a busy machine one may be late
			last := b.creds.Identity.NotAfter()
			eventually(t, "a renewed certificate", func() bool { return b.creds.Identity.NotAfter().After(last) })
			return time.Now().Before(last)
		})
		eventually(t, "the new certificate on the disk", func() bool {
			saved, err := ca.LoadIdentity(b.dir)
			return err == nil && saved.NotAfter().After(first)
		})
	}
	time.Sleep(life) // the first certificates have ended, and perhaps the second
	if _, err := w.dial.Dial(w.ctx(enough), a.mux.Advertise(), transport.Gossip); err != nil {
		t.Errorf("with the new certificate: %v", err)
	}
}

// TestLongPowerOffLocksNobodyOut: all certificates of a cluster have ended. The voter that starts first renews its own,
// the worker has its own renewed; nobody types anything.
func TestLongPowerOffLocksNobodyOut(t *testing.T) {
	t.Parallel()
	a := first(t)
	w := a.worker(0)
	if err := w.Ready(w.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	authority, err := a.authority()
	if err != nil {
		t.Fatal(err)
	}
	authority.Lifetime = -ca.Backdate / 2
	eventually(t, "the sealed authority on the disk", func() bool { _, err := os.Stat(filepath.Join(a.dir, sealedFile)); return err == nil })
	w.close()
	a.close()
	var both []*Credentials
	for _, b := range []*box{a, w} {
		creds, err := Load(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := creds.selfSign(b.dir, authority, creds.Identity.Self().Role); err != nil || !creds.Identity.Expired(time.Now()) {
			t.Fatalf("expired certificate: %v", err)
		}
		both = append(both, creds)
	}

	impatient, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := both[1].Refresh(impatient, w.dir); err == nil || !strings.Contains(err.Error(), "lorad join") {
		t.Errorf("a worker alone: %v", err)
	}
	if err := both[0].Refresh(a.ctx(enough), a.dir); err != nil {
		t.Fatal(err)
	}
	again := open(t, a.dir, "box", both[0])
	if err := again.Ready(again.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	both[1].Seeds = []string{again.mux.Advertise()} // it came back on another port
	if err := both[1].Refresh(w.ctx(enough), w.dir); err != nil {
		t.Fatal(err)
	}
	back := open(t, w.dir, "box", both[1])
	if err := back.Ready(back.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	if n := again.fsm.node(w.ID()); n.GetAddr() != back.mux.Advertise() {
		t.Errorf("recorded as %v", n)
	}
}

// TestRejoinKeepsTheNode: with a token a node comes back under its id, and nobody else under that id.
func TestRejoinKeepsTheNode(t *testing.T) {
	t.Parallel()
	a := first(t)
	w := a.worker(0)
	if err := w.Ready(w.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	w.close()
	tok := a.token(3, time.Minute)
	creds, err := w.creds.Rejoin(w.ctx(enough), w.dir, a.mux.Advertise(), tok, bound(t), facts("box"))
	if err != nil {
		t.Fatal(err)
	}
	if creds.Node.Id != w.ID() {
		t.Errorf("came back as %s, was %s", creds.Node.Id, w.ID())
	}
	key, csr, err := ca.NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	at := bound(t)
	stop, err := at.Answer(key)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	req := &proto.JoinRequest{CsrDer: csr, Node: withID(facts("x"), w.ID(), at.Advertise()), OldCertDer: w.creds.Identity.CertDER()}
	if _, err := enrol(a.ctx(enough), a.mux.Advertise(), tok, req); status.Code(err) != codes.PermissionDenied {
		t.Errorf("with another's certificate: %v", err)
	}
}

// TestRenewalIsRefused: to a node that was removed, and too often.
func TestRenewalIsRefused(t *testing.T) {
	t.Parallel()
	a := first(t)
	w := a.worker(0)
	if err := w.Ready(w.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.creds.askRenewal(w.ctx(enough), a.mux.Advertise()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.creds.askRenewal(w.ctx(enough), a.mux.Advertise()); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("at once again: %v", err)
	}
	a.removeNode(w.ID())
	if _, err := w.creds.askRenewal(w.ctx(enough), a.mux.Advertise()); err == nil {
		t.Error("a removed node's certificate was renewed")
	}
}

func (b *box) removeNode(id string) {
	b.t.Helper()
	if _, err := b.apply(b.ctx(enough), &proto.Command{Do: &proto.Command_RemoveNode{RemoveNode: &proto.RemoveNode{Id: id}}}); err != nil {
		b.t.Fatal(err)
	}
}

// TestGossipKeyChangesWhenANodeGoes: all that stay have the same new key and go on hearing each other, one that was
// away when it changed comes back, and joiners get the new one.
func TestGossipKeyChangesWhenANodeGoes(t *testing.T) {
	t.Parallel()
	boxes := three(t)
	a, b, away := boxes[0], boxes[1], boxes[2]
	w := a.worker(0)
	if err := w.Ready(w.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	old := w.gossip.keys.GetPrimaryKey()
	away.close()
	a.removeNode(w.ID())
	eventually(t, "a new key everywhere", func() bool {
		k := a.gossip.keys.GetPrimaryKey()
		return !bytes.Equal(k, old) && bytes.Equal(k, b.gossip.keys.GetPrimaryKey())
	})
	if bytes.Equal(w.gossip.keys.GetPrimaryKey(), a.gossip.keys.GetPrimaryKey()) {
		t.Error("the removed node has the new key")
	}
	for _, x := range []*box{a, b} {
		x.gossip.forgetOtherKeys(x.gossip.keys.GetPrimaryKey()) // as after keyOverlap
	}
	creds, err := Load(away.dir)
	if err != nil || !bytes.Equal(creds.GossipKey, old) {
		t.Fatalf("the node that was away has another key already: %v", err)
	}
	back := open(t, away.dir, "box", creds)
	if err := back.Ready(back.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node that was away is heard", func() bool { return a.gossip.alive(back.ID()) && back.gossip.alive(b.ID()) })
	c := a.join(a.token(1, time.Minute))
	if !bytes.Equal(c.creds.gossipKey().key, a.gossip.keys.GetPrimaryKey()) {
		t.Error("a joiner got an old key")
	}
	eventually(t, "the joiner is heard", func() bool { return b.gossip.alive(c.ID()) })
	if saved, err := Load(b.dir); err != nil || !bytes.Equal(saved.GossipKey, b.gossip.keys.GetPrimaryKey()) || slices.Equal(saved.GossipKey, old) {
		t.Errorf("the new key is not on the disk: %v", err)
	}
}

// TestJoinersThatCannotBeReached: the error names the address, and the token is not spent.
func TestJoinersThatCannotBeReached(t *testing.T) {
	t.Parallel()
	a := first(t)
	tok := a.token(1, time.Minute)
	taken, err := transport.Bind("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	taken.Close() // nobody listens there
	at, err := transport.Bind("127.0.0.1:0", taken.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	_, err = Join(a.ctx(enough), t.TempDir(), a.mux.Advertise(), tok, at, facts("x"))
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), taken.Advertise()) || !strings.Contains(err.Error(), "--advertise") {
		t.Errorf("nobody there: %v", err)
	}
	elsewhere, err := transport.Bind("127.0.0.1:0", a.mux.Advertise()) // somebody else's address
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	if _, err := Join(a.ctx(enough), t.TempDir(), a.mux.Advertise(), tok, elsewhere, facts("x")); !strings.Contains(status.Convert(err).Message(), ReachReason) {
		t.Errorf("somebody else there: %v", err)
	}
	if _, err := Join(a.ctx(enough), t.TempDir(), a.mux.Advertise(), tok, bound(t), facts("x")); err != nil {
		t.Errorf("the token was spent on those: %v", err)
	}
}

// TestClocksThatDiffer: by more than a certificate is dated back.
func TestClocksThatDiffer(t *testing.T) {
	t.Parallel()
	a := first(t)
	if err := a.Ready(a.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	tok, err := ca.ParseJoinToken(a.token(1, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	_, csr, err := ca.NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	_, err = enrolOnce(a.ctx(enough), a.mux.Advertise(), tok, &proto.JoinRequest{
		TokenId: tok.ID(), TokenSecret: tok.Secret(), CsrDer: csr, Node: withID(facts("x"), ca.NewNodeID(), "127.0.0.1:1"),
		NowUnixMs: time.Now().Add(-2 * time.Hour).UnixMilli(),
	})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "2h0m") || !strings.Contains(err.Error(), "NTP") {
		t.Errorf("got %v", err)
	}
}
