package transport

import (
	"context"
	"io"
	"net"
	"testing"

	"lorad/ca"
)

// Throughput of one connection, one way, on loopback, in pieces of 256 KiB as an all-reduce sends them:
//
//	go test ./transport -run '^$' -bench Throughput -benchtime 2s -count 3
func BenchmarkThroughput(b *testing.B) {
	b.Run("plain TCP", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		pump(b, ln, c)
	})
	b.Run("TLS 1.3", func(b *testing.B) {
		k := newCluster(b)
		m, d := k.listen(b, "server"), k.dialer(b, "client")
		c, err := d.Dial(context.Background(), m.Addr().String(), Reduce)
		if err != nil {
			b.Fatal(err)
		}
		pump(b, m.Listener(Reduce), c)
	})
}

func pump(b *testing.B, ln net.Listener, c net.Conn) {
	defer c.Close()
	other, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer other.Close()
	piece := make([]byte, 256<<10)
	got, done := make(chan int64, 1), make(chan error, 1)
	go func() {
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{other}, make([]byte, len(piece)))
		got <- n
		done <- err
	}()
	b.SetBytes(int64(len(piece)))
	for b.Loop() {
		if _, err := c.Write(piece); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	if n, err := <-got, <-done; n < int64(b.N)*int64(len(piece)) {
		b.Errorf("%d bytes arrived of %d pieces: %v", n, b.N, err)
	}
}

// A connection from nothing to verified on both sides.
func BenchmarkDial(b *testing.B) {
	k := newCluster(b)
	m, d := k.listen(b, "server"), NewDialer(k.node(b, "client", ca.Voter))
	echo(m, Reduce)
	for b.Loop() {
		c, err := d.Dial(context.Background(), m.Addr().String(), Reduce)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
