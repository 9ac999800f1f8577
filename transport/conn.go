package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"

	"lorad/ca"
)

// Conn is a handshaken connection. Its peer is verified, except on Enrol, where it is the zero Peer.
type Conn struct {
	*tls.Conn
	peer  ca.Peer
	proto Proto
	vouch func(who string) error // of a guest; nil otherwise

	mu      sync.Mutex
	closed  bool
	vouched bool
	hooks   []func()
}

// Peer is who is at the other end; the zero Peer is a stranger.
func (c *Conn) Peer() ca.Peer { return c.peer }

// Proto is what is spoken on the connection.
func (c *Conn) Proto() Proto { return c.proto }

// Vouch says who a guest is, once he has shown it: his connection may then last, as one of not too many of his.
func (c *Conn) Vouch(who string) error {
	if c.vouch == nil {
		return nil
	}
	c.mu.Lock()
	again := c.vouched
	c.vouched = true
	c.mu.Unlock()
	if again {
		return nil
	}
	return c.vouch(who)
}

// onClose has f run once, when the connection closes, or now if it has.
func (c *Conn) onClose(f func()) {
	c.mu.Lock()
	if !c.closed {
		c.hooks = append(c.hooks, f)
		f = nil
	}
	c.mu.Unlock()
	if f != nil {
		f()
	}
}

// Close closes the connection. A second Close returns net.ErrClosed.
func (c *Conn) Close() error {
	if !c.closing() {
		return net.ErrClosed
	}
	return c.Conn.Close()
}

// kill closes without a goodbye: Close may wait 5 s for a peer that reads nothing.
func (c *Conn) kill() {
	c.closing()
	c.NetConn().Close()
}

// closing runs the hooks and says whether this is the first time.
func (c *Conn) closing() bool {
	c.mu.Lock()
	hooks, first := c.hooks, !c.closed
	c.hooks, c.closed = nil, true
	c.mu.Unlock()
	for _, f := range hooks {
		f()
	}
	return first
}

// speaksFirst says whether the protocol starts with the server's ready byte.
func speaksFirst(p Proto) bool { return p == Raft || p == Gossip || p == Reduce }

func (c *Conn) sayReady() error {
	if !speaksFirst(c.proto) {
		return nil
	}
	_, err := c.Write([]byte{ready})
	return err
}

func (c *Conn) awaitReady() error {
	if !speaksFirst(c.proto) {
		return nil
	}
	var b [1]byte
	_, err := c.Read(b[:])
	if errors.Is(err, io.EOF) {
		return &kindError{Refused, errors.New("it hung up once it knew who we are")}
	}
	if err != nil {
		return err
	}
	if b[0] != ready {
		return errors.New("unexpected first byte")
	}
	return nil
}

// peers is the set of open connections, so that they can be closed by node. The zero value is empty.
type peers struct {
	mu     sync.Mutex
	closed bool
	open   map[*Conn]struct{}
}

func (p *peers) add(c *Conn) {
	p.mu.Lock()
	closed := p.closed
	if p.open == nil {
		p.open = map[*Conn]struct{}{}
	}
	p.open[c] = struct{}{}
	p.mu.Unlock()
	c.onClose(func() { p.remove(c) })
	if closed {
		c.Close()
	}
}

func (p *peers) remove(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

func (p *peers) closeNode(id string) {
	p.closeIf(func(c *Conn) bool { return c.peer.NodeID == id })
}

func (p *peers) closeRevoked(id *ca.Identity) {
	if id.Revoked != nil {
		p.closeIf(func(c *Conn) bool { return c.peer.NodeID != "" && id.Revoked(c.peer.NodeID) })
	}
}

func (p *peers) closeAll() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.closeIf(func(*Conn) bool { return true })
}

// closeIf closes outside the lock: Close calls remove.
func (p *peers) closeIf(f func(*Conn) bool) {
	p.mu.Lock()
	var hit []*Conn
	for c := range p.open {
		if f(c) {
			hit = append(hit, c)
		}
	}
	p.mu.Unlock()
	for _, c := range hit {
		c.kill()
	}
}
