package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"lorad/ca"
)

// TestFloodDrivesOutItself: whoever has the most connections loses them, not whoever came first.
func TestFloodDrivesOutItself(t *testing.T) {
	w := crowd{max: 3}
	conn := func(host string) net.Conn { return addressed{host: host} }
	quiet := conn("10.0.0.1")
	if w.push(quiet) != nil {
		t.Fatal("dropped before it was full")
	}
	for i := range 10 {
		out := w.push(conn("10.0.0.2"))
		if i >= 2 && (out == nil || out.RemoteAddr().String() != "10.0.0.2:1") || i < 2 && out != nil {
			t.Fatalf("newcomer %d drove out %v", i, out)
		}
	}
	if w.order.Front().Value != quiet || w.from["10.0.0.2"] != 2 {
		t.Errorf("held: %v", w.from)
	}
}

// addressed is a connection that knows nothing but whence it comes.
type addressed struct {
	net.Conn
	host string
}

func (a addressed) RemoteAddr() net.Addr { return address(a.host + ":1") }

// TestOneNodeHoldsSoMany: a node cannot take all the connections that there are, and gets new ones when it gives up old.
func TestOneNodeHoldsSoMany(t *testing.T) {
	q := quota{max: 2}
	a, b, c := &Conn{}, &Conn{}, &Conn{}
	if errors.Join(q.hold(a, "n1"), q.hold(b, "n1"), q.hold(&Conn{}, "n2")) != nil {
		t.Fatal("refused within the bound")
	}
	if q.hold(c, "n1") == nil {
		t.Fatal("a third connection")
	}
	a.closing()
	if err := q.hold(c, "n1"); err != nil {
		t.Error(err)
	}
}

// TestGuestsLeaveUnlessVouched: a guest who does not show who he is loses his place, one who does keeps it.
func TestGuestsLeaveUnlessVouched(t *testing.T) {
	c := newCluster(t)
	m := c.listen(t, "server")
	tok := ca.NewJoinToken(c.Pin())
	dial := func() *Conn {
		if _, err := dialPinned(short(t), opCall, m.Addr().String(), tok, People); err != nil {
			t.Fatal(err)
		}
		server, err := m.Listener(People).Accept()
		if err != nil {
			t.Fatal(err)
		}
		return server.(*Conn)
	}
	known := dial()
	if p := known.Peer(); p.Role != ca.Visitor || p.NodeID != "" {
		t.Fatalf("a guest is %+v", p)
	}
	if err := known.Vouch("somebody"); err != nil {
		t.Fatal(err)
	}
	for range doors[People].max + 3 {
		dial()
	}
	if n := connections(m, People); n != doors[People].max+1 {
		t.Errorf("%d connections held, want %d and the known one", n, doors[People].max)
	}
	m.conns.mu.Lock()
	_, open := m.conns.open[known]
	m.conns.mu.Unlock()
	if !open {
		t.Error("the known guest was driven out")
	}
	for range maxPerPerson - 1 {
		if err := dial().Vouch("somebody"); err != nil {
			t.Fatal(err)
		}
	}
	if dial().Vouch("somebody") == nil {
		t.Errorf("one person holds more than %d connections", maxPerPerson)
	}
}

// TestRenewalDoor: an expired certificate opens the door to renewal and no other; a removed node's, another cluster's
// and one that ended too long ago do not even open that.
func TestRenewalDoor(t *testing.T) {
	c := newCluster(t)
	server := c.node(t, "server", ca.Voter)
	server.Revoked = func(id string) bool { return id == "gone" }
	m := listen(t, Config{Identity: server})
	echo(m, Renew)
	expired := func(of cluster, node string, ago time.Duration) *ca.Identity {
		of.Lifetime = -ago
		defer func() { of.Lifetime = 0 }()
		return of.node(t, node, ca.Voter)
	}
	knock := func(id *ca.Identity) error {
		cfg := withProtos(id.ClientTLS(), Renew)
		conn, err := connect(short(t), nil, m.Addr().String(), cfg)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(enough))
		conn.Write([]byte("x"))
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	sleeper := expired(c, "sleeper", ca.Backdate/2)
	if err := knock(sleeper); err != nil {
		t.Errorf("an expired certificate: %v", err)
	}
	if err := knock(c.node(t, "awake", ca.Worker)); err != nil {
		t.Errorf("a valid certificate: %v", err)
	}
	_, err := NewDialer(sleeper).Dial(short(t), m.Addr().String(), Reduce)
	wantKind(t, err, Expired)
	for name, id := range map[string]*ca.Identity{
		"removed": expired(c, "gone", ca.Backdate/2), "of another cluster": newCluster(t).node(t, "sleeper", ca.Voter),
	} {
		if err := knock(id); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	if _, err := server.Lapsed(sleeper.CertDER(), time.Minute); !errors.Is(err, ca.ErrLapsed) {
		t.Errorf("ended longer ago than the grace: %v", err)
	}
}

// TestReachBack: a joiner is found at its own address, and the error names the address where it is not.
func TestReachBack(t *testing.T) {
	at, err := Bind("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	key, csr, err := ca.NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	same := func(der []byte) bool { return ca.SameKey(csr, der) }
	stop, err := at.Answer(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := Reach(short(t), at.Advertise(), same); err != nil {
		t.Error(err)
	}
	wantKind(t, Reach(short(t), at.Advertise(), func([]byte) bool { return false }), WrongNode)
	stop()
	c := newCluster(t)
	m, err := Config{Bound: at, Identity: c.node(t, "server", ca.Voter)}.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	echo(m, Reduce)
	if _, err := c.dialer(t, "client").Dial(short(t), at.Advertise(), Reduce); err != nil {
		t.Errorf("the port after the look: %v", err)
	}
	err = Reach(short(t), at.Advertise(), same)
	wantKind(t, err, NotLorad) // a node that runs is not a joiner
	err = Reach(short(t), closedPort(t), same)
	wantKind(t, err, Unreachable)
	if !strings.Contains(err.Error(), "reach back 127.0.0.1:") {
		t.Errorf("the error does not name the address: %v", err)
	}
}

// TestBrowsersGetHTTP: who offers HTTP/2 and HTTP/1.1, as browsers do, does not come out at the nodes' gRPC.
func TestBrowsersGetHTTP(t *testing.T) {
	m := newCluster(t).listen(t, "server")
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(context.Background(), "tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if p := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("negotiated %q", p)
	}
}
