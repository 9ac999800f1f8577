// Package tcp carries the all-reduce over byte streams: a [Link] over any net.Conn (mutual TLS in production),
// a [Registry] that owns the listener, and [Connect], which builds a member's end of a ring.
//
// # Meeting
//
// Every member dials its successor and waits for its predecessor. The dialler says who it is and what it wants
// (a hello: run, generation, from, to, fingerprint of the member list); the acceptor matches the hello with a
// waiting Connect, answers yes, no (stale generation, wrong person, other members: final) or later, and the
// dialler acknowledges a yes. The acknowledgement costs one round trip and rules out that a member takes a
// connection whose dialler has given up. When both neighbours are there, an empty all-gather proves that the
// whole ring is: Connect returns on every member or on none for long.
//
// A hello that comes before the local node knows of the generation is kept for a few seconds, in bounded
// number; members learn of a new generation at different moments, and the early one should not have to poll.
//
// # Why not otherwise
//
//   - Not one connection for both directions of a pair: in a ring of three or more there are none to share, and
//     a ring of two is not worth a special case.
//   - Not connections kept from one generation to the next: a fresh connection cannot hold a stale frame.
package tcp

import (
	"bufio"
	"net"
	"time"

	"lorad/allreduce"
)

// bufSize of each direction. Larger payloads pass by the buffer; with TLS it saves small records.
const bufSize = 64 << 10

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
	return &Link{conn: conn, in: in, r: bufio.NewReaderSize(in, bufSize), w: bufio.NewWriterSize(conn, bufSize)}
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
