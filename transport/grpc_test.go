package transport

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/proto"
)

// whoami answers Ping with the caller's role and node id, as the transport sees them.
type whoami struct{ proto.UnimplementedPeerServer }

func (whoami) Ping(ctx context.Context, _ *proto.PingRequest) (*proto.PingReply, error) {
	p, ok := PeerFromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	return &proto.PingReply{Id: string(p.Role) + " " + p.NodeID}, nil
}

func serve(t *testing.T, listeners ...net.Listener) {
	s := grpc.NewServer(ServerOptions()...)
	proto.RegisterPeerServer(s, whoami{})
	t.Cleanup(s.Stop)
	for _, ln := range listeners {
		go s.Serve(ln)
	}
}

func ping(t *testing.T, cc *grpc.ClientConn) (string, error) {
	r, err := proto.NewPeerClient(cc).Ping(short(t), &proto.PingRequest{})
	return r.GetId(), err
}

func wantPing(t *testing.T, cc *grpc.ClientConn, err error, want string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	if got, err := ping(t, cc); err != nil || got != want {
		t.Errorf("the server sees %q, %v, want %q", got, err, want)
	}
}

func TestGRPCSeesItsPeer(t *testing.T) {
	c := newCluster(t)
	m := c.listen(t, "server")
	dir := filepath.Join(t.TempDir(), "run")
	local, err := ListenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, m.Listener(GRPC), local)
	addr := m.Addr().String()

	d := NewDialer(c.node(t, "client", ca.Worker))
	cc, err := d.GRPC(addr)
	wantPing(t, cc, err, "worker client")
	cc, err = DialLocal(short(t), dir)
	wantPing(t, cc, err, "owner ")
}

// historian has the ledger of a run of 300,000 steps.
type historian struct {
	proto.UnimplementedControlServer
}

func (historian) GetRun(context.Context, *proto.GetRunRequest) (*proto.Run, error) {
	r := &proto.Run{}
	for i := range uint64(300_000) {
		r.Ledger = append(r.Ledger, &proto.StepRecord{Step: i + 1, Generation: 1, Loss: 1.5, GradNorm: 0.5, LearningRate: 1e-4, Tokens: 4096,
			TotalTokens: 8192, DurationUs: 90_000, Epoch: 0.25, Digest: 1 << 63, ComputeUs: 80_000, ReduceUs: 9_000, Node: "63c3bc490def31d1"})
	}
	return r, nil
}

// A long run is shown whole; what callers may send stays bounded.
func TestLongLedgerArrives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	local, err := ListenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(ServerOptions()...)
	proto.RegisterControlServer(s, historian{})
	t.Cleanup(s.Stop)
	go s.Serve(local)
	cc, err := DialLocal(short(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	c := proto.NewControlClient(cc)
	if r, err := c.GetRun(t.Context(), &proto.GetRunRequest{}); err != nil || len(r.Ledger) != 300_000 {
		t.Errorf("%d steps of 300,000 arrived: %v", len(r.GetLedger()), err)
	}
	req := &proto.GetRunRequest{Run: strings.Repeat("r", maxMessage)}
	if _, err := c.GetRun(t.Context(), req, grpc.MaxCallSendMsgSize(2*maxMessage)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request of %d bytes: %v", maxMessage, err)
	}
}

// TestStrangerIsNobody: the server sees the one who enrols as the zero Peer, and can tell that from no peer.
func TestStrangerIsNobody(t *testing.T) {
	c := newCluster(t)
	m := c.listen(t, "server")
	serve(t, m.Listener(Enrol))
	cc, err := GRPCEnrol(short(t), m.Addr().String(), ca.NewJoinToken(c.Pin()))
	wantPing(t, cc, err, " ")
}

func TestGRPCConnectsAgain(t *testing.T) {
	c := newCluster(t)
	m, d := c.listen(t, "server"), c.dialer(t, "client")
	serve(t, m.Listener(GRPC))
	cc, err := d.GRPC(m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	if _, err := ping(t, cc); err != nil {
		t.Fatal(err)
	}
	m.Disconnect("client")
	for end := time.Now().Add(enough); ; time.Sleep(time.Millisecond) {
		if _, err = ping(t, cc); err == nil || time.Now().After(end) {
			break // a call that was under way when the connection broke may fail
		}
	}
	if err != nil {
		t.Errorf("after the connection broke: %v", err)
	}
}

func TestGRPCErrorNamesTheFix(t *testing.T) {
	c := newCluster(t)
	m := newCluster(t).listen(t, "server")
	serve(t, m.Listener(GRPC), m.Listener(Enrol))
	cc, err := c.dialer(t, "client").GRPC(m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	if _, err = ping(t, cc); err == nil || !strings.Contains(err.Error(), string(OtherCluster)) {
		t.Errorf("call to another cluster: %v", err)
	}
	_, err = GRPCEnrol(short(t), m.Addr().String(), ca.NewJoinToken(c.Pin()))
	wantKind(t, err, PinMismatch)
}

func TestGRPCRefusesForeignConnections(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ln)
	cc, err := newClient(ln.Addr().String(), func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		return &claims{c}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	if _, err := ping(t, cc); status.Code(err) != codes.Unavailable {
		t.Errorf("a plain TCP client got %v", err)
	}
}

type claims struct{ net.Conn }

func (claims) Peer() ca.Peer { return ca.Peer{} }

func TestLocalSocket(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	for name, dir := range map[string]string{"short": filepath.Join(t.TempDir(), "d"), "long": long} {
		t.Run(name, func(t *testing.T) {
			_, err := DialLocal(short(t), dir)
			wantKind(t, err, NotRunning)
			ln, err := ListenLocal(dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ListenLocal(dir); err == nil || !strings.Contains(err.Error(), "is running here") {
				t.Errorf("second listener: %v", err)
			}
			ln.(*localListener).UnixListener.Close() // as a killed process leaves it
			if _, err := os.Stat(filepath.Join(dir, socketName)); err != nil {
				t.Fatal("no stale socket to test with: ", err)
			}
			_, err = DialLocal(short(t), dir)
			wantKind(t, err, NotRunning)
			ln, err = ListenLocal(dir)
			if err != nil {
				t.Fatal("stale socket: ", err)
			}
			serve(t, ln)
			cc, err := DialLocal(short(t), dir)
			wantPing(t, cc, err, "owner ")
		})
	}
}

func TestLocalSocketWantsAPrivateDirectory(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	if _, err := ListenLocal(dir); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("open directory: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	os.Symlink(t.TempDir(), link)
	if ln, err := ListenLocal(link); err == nil {
		ln.Close()
		t.Error("symbolic link accepted")
	}
}

func TestDialErrors(t *testing.T) {
	c := newCluster(t)
	d, tok := c.dialer(t, "client"), ca.NewJoinToken(c.Pin())
	for name, x := range map[string]struct {
		addr string
		kind Kind
	}{
		"nobody":     {closedPort(t), Unreachable},
		"banner":     {plain(t, func(c net.Conn) { c.Write([]byte("SSH-2.0-x\r\n")) }), NotLorad},
		"hangs up":   {plain(t, func(net.Conn) {}), NotLorad},
		"HTTPS":      {httpsServer(t, nil), NotLorad},
		"HTTP/2":     {httpsServer(t, []string{"h2", "http/1.1"}), NotLorad},
		"no address": {"127.0.0.1", Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := d.Dial(short(t), x.addr, Raft)
			wantKind(t, err, x.kind)
			_, err = d.Dial(short(t), x.addr, GRPC)
			wantKind(t, err, x.kind)
			_, err = DialEnrol(short(t), x.addr, tok)
			wantKind(t, err, x.kind)
		})
	}
	m := c.listen(t, "server")
	_, err := d.DialNode(short(t), m.Addr().String(), "another", Raft)
	wantKind(t, err, WrongNode)
}

// TestSilentServer: a server that never answers costs no more than the context's time.
func TestSilentServer(t *testing.T) {
	c := newCluster(t)
	addr := plain(t, func(c net.Conn) { c.Read(make([]byte, 1<<16)); c.Read(make([]byte, 1)) })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := c.dialer(t, "client").Dial(ctx, addr, Raft)
	wantKind(t, err, Unreachable)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > handshakeTimeout-time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}
