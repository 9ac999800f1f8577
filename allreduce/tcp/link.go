// Package tcp carries the all-reduce over byte streams: a [Link] over any net.Conn (mutual TLS in production),
// a [Registry] that owns the listener, and [Connect], which builds a member's end of a group.
//
// # Meeting
//
// Every two members share one connection; each dials the half of the others that follows it. The dialler says who it is and what it wants
// (a hello: run, generation, from, to, fingerprint of the member list); the acceptor matches the hello with a
// waiting Connect, answers yes, no (stale generation, wrong person, other members: final) or later, and the
// dialler acknowledges a yes. The acknowledgement costs one round trip and rules out that a member takes a
// connection whose dialler has given up. When all others are there, a first collective proves that the
// whole group is (the members tell each other how fast their links are): Connect returns on every member or on none for long.
//
// A hello that comes before the local node knows of the generation is kept for a few seconds, in bounded
// number; members learn of a new generation at different moments, and the early one should not have to poll.
//
// # Why not otherwise
//
//   - Not only the connections of a ring: a direct exchange takes 2 hops instead of 2(N-1), and a member that dies is seen by all
//     at once. A cluster that two nodes of cannot reach each other has no ring through both either, if it has three.
//   - Not connections kept from one generation to the next: a fresh connection cannot hold a stale frame.
package tcp

import (
	"bufio"
	"net"
	"syscall"
	"time"

	"lorad/allreduce"
)

// Sizes of the buffers. What is larger passes by them, so they are as small as will do: a header is read with what follows it, and
// sent with as much of its payload as makes a full record of TLS.
const (
	readSize  = 4 << 10
	writeSize = 16 << 10
)

// near is the round trip below which a connection is taken to stay within a building. There a congestion control that goes
// by measured rates (BBR, some systems' default) does harm: a member that waits for its processor looks like a slow cable, and
// is sent to more slowly still. One that goes by losses keeps the cables' queues full meanwhile. On a way through many
// networks losses say less than rates, so that the system's choice is left alone.
const near = 10 * time.Millisecond

// Link is an allreduce.Link over a stream.
type Link struct {
	conn net.Conn
	in   *patient
	r    *bufio.Reader
	w    *bufio.Writer
	rh   [allreduce.HeaderSize]byte
	wh   [allreduce.HeaderSize]byte
}

var _ allreduce.Link = (*Link)(nil)

// NewLink takes over an established connection.
func NewLink(conn net.Conn) *Link {
	in := &patient{conn: conn}
	l := &Link{conn: conn, in: in, r: bufio.NewReaderSize(in, readSize), w: bufio.NewWriterSize(conn, writeSize)}
	if rtt := l.RTT(); rtt > 0 && rtt < near {
		goByLosses(l.socket())
	}
	return l
}

// WriteFrame implements allreduce.Link.
func (l *Link) WriteFrame(h allreduce.Header, payload []byte) error {
	h.Put(&l.wh, payload)
	if _, err := l.w.Write(l.wh[:]); err != nil {
		return err
	}
	if _, err := l.w.Write(payload); err != nil {
		return err
	}
	return l.w.Flush()
}

// ReadFrame implements allreduce.Link.
func (l *Link) ReadFrame(buf []byte, silence time.Duration) (allreduce.Header, []byte, error) {
	l.in.silence = silence
	return allreduce.ReadFrame(l.r, &l.rh, buf)
}

// Close implements allreduce.Link. TLS's own goodbye may wait for seconds for a peer that reads nothing; the
// group has said its own, so the connection below goes first.
func (l *Link) Close() error {
	if t, ok := l.conn.(interface{ NetConn() net.Conn }); ok {
		_ = t.NetConn().Close()
	}
	return l.conn.Close()
}

// RTT is the least round trip that the kernel has seen on the connection; 0 = not known.
func (l *Link) RTT() time.Duration {
	if c := l.socket(); c != nil {
		return minRTT(c)
	}
	return 0
}

// socket is the connection below TLS, or nil if it is none of the kernel's.
func (l *Link) socket() syscall.Conn {
	conn := l.conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	c, _ := conn.(syscall.Conn)
	return c
}

// patient grants every read its own deadline: a slow link that still brings bytes is not silent.
type patient struct {
	conn    net.Conn
	silence time.Duration // 0 = for ever
}

func (p *patient) Read(b []byte) (int, error) {
	var deadline time.Time
	if p.silence > 0 {
		deadline = time.Now().Add(p.silence)
	}
	if err := p.conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	return p.conn.Read(b)
}
