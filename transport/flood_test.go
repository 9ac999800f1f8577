package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"lorad/ca"
)

// TestSlowloris: handshakes that stall, many more than are allowed at once, neither keep an honest node out nor
// are kept.
func TestSlowloris(t *testing.T) {
	c := newCluster(t)
	var mu sync.Mutex
	refused := 0
	m := listen(t, Config{Identity: c.node(t, "server", ca.Voter), handshake: 2 * enough, Refused: func(net.Addr, error) { // none ends by itself
		mu.Lock()
		defer mu.Unlock()
		refused++
	}})
	accepted := echo(m, Reduce)
	before := runtime.NumGoroutine()
	const flood = 3 * maxHandshakes
	for i := range flood {
		raw, err := net.Dial("tcp", m.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		raw.Write([]byte{0x16, 3, 1}[:i%4]) // nothing, or the start of a hello
	}
	conn, err := c.dialer(t, "client").Dial(short(t), m.Addr().String(), Reduce)
	if err != nil {
		t.Fatal("an honest node under a flood: ", err)
	}
	says(t, conn, "through")
	waitFor(t, "the oldest handshakes to be dropped", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return refused >= flood-maxHandshakes
	})
	waitFor(t, "no more goroutines than one for each stalled handshake that is allowed", func() bool {
		return runtime.NumGoroutine()-before <= maxHandshakes+20
	})
	if n := accepted.Load(); n != 1 {
		t.Errorf("%d connections accepted, want 1", n)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(enough); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for ", what)
		}
	}
}

// TestStalledHandshakeEnds: even a lone one is hung up on.
func TestStalledHandshakeEnds(t *testing.T) {
	const patience = 100 * time.Millisecond
	m := listen(t, Config{Identity: newCluster(t).node(t, "server", ca.Voter), handshake: patience})
	start := time.Now()
	raw, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(start.Add(enough))
	_, err = raw.Read(make([]byte, 1))
	if d := time.Since(start); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || d < patience {
		t.Errorf("after %v: %v, want it open until %v and closed then", d, err, patience)
	}
}

// TestStrangersAreBounded: no more connections than the door allows without a certificate are held.
func TestStrangersAreBounded(t *testing.T) {
	c := newCluster(t)
	m := c.listen(t, "server")
	echo(m, Enrol)
	tok := ca.NewJoinToken(c.Pin())
	var all []net.Conn
	for range doors[Enrol].max + 10 {
		conn, err := DialEnrol(short(t), m.Addr().String(), tok)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		says(t, conn, "hello") // the server has taken it in
		all = append(all, conn)
	}
	if n := connections(m, Enrol); n > doors[Enrol].max {
		t.Errorf("%d strangers held, want at most %d", n, doors[Enrol].max)
	}
	says(t, all[len(all)-1], "the newest is served")
	all[0].SetReadDeadline(time.Now().Add(enough))
	if _, err := all[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest is still there: %v", err)
	}
}

func TestGarbageIsRefused(t *testing.T) {
	m := newCluster(t).listen(t, "server")
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01\xff\xff", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		raw, err := net.Dial("tcp", m.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		raw.SetDeadline(time.Now().Add(enough))
		io.WriteString(raw, text)
		raw.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(raw)
		if len(got) > 64 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: answered %d bytes, %v", text, len(got), err)
		}
		raw.Close()
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	m := newCluster(t).listen(t, "server")
	cfg := rude(string(Enrol), nil)
	cfg.MaxVersion = tls.VersionTLS12
	if conn, err := tls.Dial("tcp", m.Addr().String(), cfg); err == nil {
		conn.Close()
		t.Error("TLS 1.2 accepted")
	}
}

// TestRevocationClosesConnections: on both sides, and for good.
func TestRevocationClosesConnections(t *testing.T) {
	c := newCluster(t)
	m, d := c.listen(t, "server"), c.dialer(t, "client")
	for name, disconnect := range map[string]func(){
		"by the server": func() { m.Disconnect("client") },
		"by the client": func() { d.Disconnect("server") },
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := d.Dial(short(t), m.Addr().String(), Reduce)
			if err != nil {
				t.Fatal(err)
			}
			other, err := m.Listener(Reduce).Accept()
			if err != nil {
				t.Fatal(err)
			}
			m.Disconnect("somebody else")
			go func() {
				io.Copy(other, other)
				other.Close()
			}()
			says(t, conn, "still here")
			disconnect()
			conn.SetReadDeadline(time.Now().Add(enough))
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v, want a closed connection", err)
			}
			waitFor(t, "the server to forget the connection", func() bool { return connections(m, Reduce) == 0 })
		})
	}
}

// TestFullQueueTurnsAway: a protocol that nobody accepts holds a bounded number of connections and does not
// hold up the others.
func TestFullQueueTurnsAway(t *testing.T) {
	c := newCluster(t)
	m, d := c.listen(t, "server"), c.dialer(t, "client")
	echo(m, Reduce)
	for range backlog + 5 {
		if _, err := d.Dial(short(t), m.Addr().String(), Gossip); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the surplus to be closed", func() bool { return connections(m, Gossip) == backlog })
	conn, err := d.Dial(short(t), m.Addr().String(), Reduce)
	if err != nil {
		t.Fatal(err)
	}
	says(t, conn, "another protocol")
}

// TestWireHidesEverything: what is said in an enrolment and between nodes is not on the wire in clear.
func TestWireHidesEverything(t *testing.T) {
	c := newCluster(t)
	m, d := c.listen(t, "server"), c.dialer(t, "client")
	echo(m, Enrol)
	echo(m, Reduce)
	tape := &tape{}
	addr := plain(t, func(in net.Conn) { tape.relay(in, m.Addr().String()) })
	tok := ca.NewJoinToken(c.Pin())
	enrol, err := DialEnrol(short(t), addr, tok)
	if err != nil {
		t.Fatal(err)
	}
	defer enrol.Close()
	says(t, enrol, string(tok.Secret()))
	says(t, enrol, tok.Reveal())
	reduce, err := d.Dial(short(t), addr, Reduce)
	if err != nil {
		t.Fatal(err)
	}
	says(t, reduce, "a planted gradient")
	tape.wantNone(t, string(tok.Secret()), tok.Reveal(), "a planted gradient", "client")
	if tape.len() < 3000 {
		t.Errorf("the tape holds %d bytes: it missed the handshakes", tape.len())
	}
}
