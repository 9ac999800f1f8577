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
func between(t *testing.T, latency time.Duration) (*Network, *net.TCPAddr) {
	t.Helper()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := New(latency)
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

const patience = 30 * time.Second

// A cut is silence on old and new connections, and nothing else; afterwards what was said arrives.
func TestCutIsABlackHole(t *testing.T) {
	n, b := between(t, 0)
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
	n, b := between(t, 0)
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

// Between nodes a byte takes its time, both ways, and many on their way at once take no longer; callers that are no node
// pass. What was on its way when the sender hung up still arrives.
func TestLatency(t *testing.T) {
	const latency = 50 * time.Millisecond
	_, b := between(t, latency)
	stranger, c := call(t, "127.0.0.9", b), call(t, "127.0.0.2", b)
	began := time.Now()
	if !echoes(t, stranger, patience) || !echoes(t, c, patience) {
		t.Fatal("nothing passes")
	}
	if took := time.Since(began); took < 2*latency {
		t.Errorf("there and back in %s", took)
	}
	const many = 100
	go func() {
		for range many {
			c.Write([]byte("x"))
			time.Sleep(latency / many)
		}
		c.CloseWrite()
	}()
	c.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(c); err != nil || len(got) != many {
		t.Errorf("%d of %d bytes came back: %v", len(got), many, err)
	}
	if took := time.Since(began); took > many*latency { // there and back, one after the other: twice that
		t.Errorf("%d bytes took %s: one after the other", many, took)
	}
}
