package relay

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// between starts a relay to an echo server called "b"; calls from 127.0.0.2 are those of "a".
func between(t *testing.T) (*Network, *net.TCPAddr) {
	t.Helper()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := New()
	t.Cleanup(func() { n.Close(); target.Close(); goleak.VerifyNone(t) })
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	for _, node := range []Node{
		{Name: "a", Listen: "127.0.0.1:0", Target: "127.0.0.1:1", From: "127.0.0.2"},
		{Name: "b", Listen: "127.0.0.1:0", Target: target.Addr().String(), From: "127.0.0.3"},
	} {
		if err := n.Add(node); err != nil {
			t.Fatal(err)
		}
	}
	return n, n.listeners[1].Addr().(*net.TCPAddr)
}

func call(t *testing.T, from string, to *net.TCPAddr) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(from)}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// echoes says whether a byte comes back soon.
func echoes(t *testing.T, c *net.TCPConn, soon time.Duration) bool {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(soon))
	_, err := io.ReadFull(c, make([]byte, 1))
	if err != nil && !os.IsTimeout(err) {
		t.Fatalf("the connection was not left open: %v", err)
	}
	return err == nil
}

const patience = 10 * time.Second

// A cut is silence on old and new connections, and nothing else; afterwards what was said arrives.
func TestCutIsABlackHole(t *testing.T) {
	n, b := between(t)
	old, stranger := call(t, "127.0.0.2", b), call(t, "127.0.0.9", b)
	if !echoes(t, old, patience) {
		t.Fatal("nothing passes")
	}
	n.Cut([]string{"b"})
	fresh := call(t, "127.0.0.2", b)
	if echoes(t, old, 100*time.Millisecond) || echoes(t, fresh, 100*time.Millisecond) {
		t.Fatal("the cut leaks")
	}
	if !echoes(t, stranger, patience) {
		t.Fatal("a caller that is no node was cut off too")
	}
	n.Cut([]string{"a", "b"})
	for _, c := range []*net.TCPConn{old, fresh} {
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("what was sent during the cut did not arrive: %v", err)
		}
	}
	n.Heal()
	if !echoes(t, old, patience) {
		t.Fatal("not healed")
	}
}

// That an end has died is passed on, but not through a cut.
func TestDeathIsPassedOn(t *testing.T) {
	n, b := between(t)
	c := call(t, "127.0.0.2", b)
	if !echoes(t, c, patience) {
		t.Fatal("nothing passes")
	}
	n.Cut([]string{"b"})
	c.CloseWrite() // the echo server ends when it hears of it
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Fatalf("the death passed the cut: %v", err)
	}
	n.Heal()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("want EOF, got %v", err)
	}
	dead, err := net.DialTCP("tcp", nil, n.listeners[0].Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	dead.SetReadDeadline(time.Now().Add(patience))
	if _, err := dead.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Fatalf("nobody listens, but %v", err)
	}
}
