package transport

import (
	"errors"
	"net"
	"sync"
)

var errBusy = errors.New("too many connections wait to be accepted")

// port is the listener of one protocol: a queue that Mux fills.
type port struct {
	addr  net.Addr
	queue chan net.Conn
	done  chan struct{}

	mu     sync.Mutex // put and Close exclude each other, so nothing is queued after the drain
	closed bool
}

func newPort(addr net.Addr) *port {
	return &port{addr: addr, queue: make(chan net.Conn, backlog), done: make(chan struct{})}
}

// put never blocks: a protocol that does not accept must not hold up the others.
func (p *port) put(c net.Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	select {
	case p.queue <- c:
		return nil
	default:
		return errBusy
	}
}

// Accept returns the next connection, or net.ErrClosed once the port or its Mux is closed.
func (p *port) Accept() (net.Conn, error) {
	select {
	case <-p.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-p.queue:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close refuses further connections of this protocol and closes those not yet accepted. Accepted ones live on.
func (p *port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	close(p.done)
	for {
		select {
		case c := <-p.queue:
			c.Close()
		default:
			return nil
		}
	}
}

func (p *port) Addr() net.Addr { return p.addr }
