package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lorad/ca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is an authority with its nodes' names.
type cluster struct{ *ca.Authority }

func newCluster(t testing.TB) cluster {
	t.Helper()
	a, err := ca.New(ca.NewClusterID())
	if err != nil {
		t.Fatal(err)
	}
	return cluster{a}
}

func (c cluster) node(t testing.TB, name string, r ca.Role) *ca.Identity {
	t.Helper()
	id, err := c.Issue(ca.Subject{ClusterID: c.ClusterID(), NodeID: name, Role: r})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (c cluster) listen(t testing.TB, name string) *Mux {
	t.Helper()
	return listen(t, Config{Identity: c.node(t, name, ca.Voter)})
}

func listen(t testing.TB, cfg Config) *Mux {
	t.Helper()
	cfg.Bind = "127.0.0.1:0"
	m, err := cfg.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func (c cluster) dialer(t testing.TB, name string) *Dialer {
	t.Helper()
	d := NewDialer(c.node(t, name, ca.Voter))
	t.Cleanup(func() { d.Close() })
	return d
}

// enough is more than anything that has to come takes, on a busy machine too.
const enough = 30 * time.Second

func short(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), enough)
	t.Cleanup(cancel)
	return ctx
}

// echo answers each connection of a protocol with what it sends, and counts them.
func echo(m *Mux, p Proto) *atomic.Int32 {
	n := new(atomic.Int32)
	go func() {
		for {
			c, err := m.Listener(p).Accept()
			if err != nil {
				return
			}
			n.Add(1)
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return n
}

func says(t *testing.T, c net.Conn, text string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(enough))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v, want %q back", got, err, text)
	}
}

func wantKind(t *testing.T, err error, k Kind) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != k {
		t.Fatalf("got %v, want an error of kind %q", err, k)
	}
	if e.Fix() == "" {
		t.Errorf("kind %q has no fix", k)
	}
}

func TestEveryProtocolReachesItsListener(t *testing.T) {
	c := newCluster(t)
	m, d := c.listen(t, "server"), c.dialer(t, "client")
	for _, p := range []Proto{GRPC, Raft, Gossip, Reduce} {
		conn, err := d.DialNode(short(t), m.Addr().String(), "server", p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Listener(p).Accept()
		if err != nil {
			t.Fatal(err)
		}
		want := ca.Peer{ClusterID: c.ClusterID(), NodeID: "client", Role: ca.Voter}
		if peer := got.(*Conn).Peer(); peer != want || got.(*Conn).Proto() != p {
			t.Errorf("%s: accepted peer %+v", p, peer)
		}
		if peer := conn.(*Conn).Peer(); peer.NodeID != "server" {
			t.Errorf("%s: dialed peer %+v", p, peer)
		}
		go func() { io.Copy(got, got) }()
		says(t, conn, "over "+string(p))
	}
}

func TestEnrol(t *testing.T) {
	c := newCluster(t)
	m := c.listen(t, "server")
	accepted := echo(m, Enrol)
	conn, err := DialEnrol(short(t), m.Addr().String(), ca.NewJoinToken(c.Pin()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	says(t, conn, "let me in")

	_, err = DialEnrol(short(t), m.Addr().String(), ca.NewJoinToken(newCluster(t).Pin()))
	wantKind(t, err, PinMismatch)
	if n := accepted.Load(); n != 1 {
		t.Errorf("%d connections reached the enrol listener, want 1", n)
	}
}

// besieged is a node with those who must not get in, and how many connections reached its protocols of nodes.
type besieged struct {
	*Mux
	strangers map[string]*ca.Identity
	reached   atomic.Int32
}

func newBesieged(t *testing.T) *besieged {
	c, other := newCluster(t), newCluster(t)
	server := c.node(t, "server", ca.Voter)
	server.Revoked = func(id string) bool { return id == "removed" }
	b := &besieged{Mux: listen(t, Config{Identity: server}), strangers: map[string]*ca.Identity{
		"other cluster": other.node(t, "client", ca.Voter),
		"removed":       c.node(t, "removed", ca.Voter),
		"worker":        c.node(t, "worker", ca.Worker),
	}}
	c.Lifetime = -ca.Backdate / 2
	b.strangers["expired"] = c.node(t, "sleeper", ca.Voter)
	for _, p := range []Proto{GRPC, Raft, Gossip, Reduce} {
		serveWith(t, b.Listener(p), func(net.Conn) { b.reached.Add(1) })
	}
	t.Cleanup(func() {
		if n := b.reached.Load(); n != 0 {
			t.Errorf("%d strangers reached a protocol of nodes", n)
		}
	})
	return b
}

// TestStrangerDial: our own dialer says why a node was refused.
func TestStrangerDial(t *testing.T) {
	b := newBesieged(t)
	for _, p := range []Proto{Raft, Gossip, Reduce} {
		for name, kind := range map[string]Kind{"other cluster": OtherCluster, "expired": Expired, "removed": Refused} {
			t.Run(fmt.Sprint(p, " ", name), func(t *testing.T) {
				_, err := NewDialer(b.strangers[name]).Dial(short(t), b.Addr().String(), p)
				wantKind(t, err, kind)
			})
		}
	}
	t.Run("worker may not speak Raft", func(t *testing.T) {
		_, err := NewDialer(b.strangers["worker"]).Dial(short(t), b.Addr().String(), Raft)
		wantKind(t, err, Refused)
	})
}

// TestStrangerRude: clients that verify nothing and show what certificate they like are hung up on.
func TestStrangerRude(t *testing.T) {
	b := newBesieged(t)
	for _, p := range []string{"h2", "lorad-raft/1", "lorad-gossip/1", "lorad-reduce/1", "http/1.0", ""} {
		for _, name := range []string{"no certificate", "other cluster", "expired", "removed"} {
			t.Run(fmt.Sprintf("%q %s", p, name), func(t *testing.T) {
				var certs []tls.Certificate
				if id := b.strangers[name]; id != nil {
					certs = append(certs, certOf(id))
				}
				wantHangUp(t, b.Mux, rude(p, certs))
			})
		}
	}
	t.Run("enrol and gRPC offered", func(t *testing.T) {
		cfg := rude("h2", nil)
		cfg.NextProtos = []string{string(Enrol), "h2"}
		wantHangUp(t, b.Mux, cfg)
	})
}

// TestExpiredServer: a node that was switched off for too long is named as such, to nodes and to joiners.
func TestExpiredServer(t *testing.T) {
	c := newCluster(t)
	d := c.dialer(t, "client")
	c.Lifetime = -ca.Backdate / 2
	m := c.listen(t, "sleeper")
	_, err := d.Dial(short(t), m.Addr().String(), Reduce)
	wantKind(t, err, Clock)
	_, err = DialEnrol(short(t), m.Addr().String(), ca.NewJoinToken(c.Pin()))
	wantKind(t, err, Clock)
}

func TestAdvertised(t *testing.T) {
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000}
	for want, got := range map[string]string{
		"":                  "127.0.0.1:7000",
		"box7":              "box7:7000",
		"box7:9000":         "box7:9000",
		"203.0.113.5:0":     "203.0.113.5:7000",
		"[2001:db8::1]:443": "[2001:db8::1]:443",
		"2001:db8::1":       "[2001:db8::1]:7000",
	} {
		if a, err := advertised(want, loopback); err != nil || a != got {
			t.Errorf("advertise %q: %q, %v, want %q", want, a, err, got)
		}
	}
	for _, bad := range []string{"0.0.0.0", "[::]:7000", ":7000", "box7:http", "box7:99999"} {
		if a, err := advertised(bad, loopback); err == nil {
			t.Errorf("advertise %q: %q, want an error", bad, a)
		}
	}
	everywhere, err := advertised("", &net.TCPAddr{IP: net.IPv4zero, Port: 7000})
	host, _, _ := net.SplitHostPort(everywhere)
	if ip := net.ParseIP(host); err != nil || ip == nil || ip.IsUnspecified() {
		t.Errorf("bound to all interfaces: advertised %q, %v", everywhere, err)
	}
}

// certOf takes a node's certificate out of its identity, as a thief of its files would.
func certOf(id *ca.Identity) tls.Certificate {
	c, _ := id.ClientTLS().GetClientCertificate(nil)
	return *c
}

func rude(proto string, certs []tls.Certificate) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(certs) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certs[0], nil // whatever authorities the server asks for
	}}
	if proto != "" {
		c.NextProtos = []string{proto}
	}
	return c
}

// wantHangUp expects not one byte from the server after the handshake, if it gets that far.
func wantHangUp(t *testing.T, m *Mux, cfg *tls.Config) {
	t.Helper()
	raw, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(enough))
	conn := tls.Client(raw, cfg)
	if err := conn.Handshake(); err != nil {
		return
	}
	n, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if n > 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("read %d bytes, %v: want the server to hang up", n, err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	c := newCluster(t)
	m, d := c.listen(t, "server"), c.dialer(t, "client")
	accepted, err := d.Dial(short(t), m.Addr().String(), Reduce)
	if err != nil {
		t.Fatal(err)
	}
	server, _ := m.Listener(Reduce).Accept()
	waiting := make(chan error)
	go func() {
		_, err := m.Listener(Raft).Accept()
		waiting <- err
	}()
	half, _ := net.Dial("tcp", m.Addr().String())
	defer half.Close()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{accepted, half, server} {
		conn.SetReadDeadline(time.Now().Add(enough))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection lives on after Close: %v", err)
		}
	}
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept during Close: %v", err)
	}
	if _, err := m.Listener(Raft).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	_, err = d.Dial(short(t), m.Addr().String(), Reduce)
	wantKind(t, err, Unreachable)
}
