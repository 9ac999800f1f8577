// Package relay is a network between processes of one machine that can be cut, without rights on the machine.
//
// Every node advertises the address of a relay, which passes connections on to where the node listens. Who calls is
// known by the address that the call comes from: each node has a loopback address of its own. A cut is a black hole, as
// a pulled cable is: nothing passes any more between the two sides, no connection is closed or refused, what is written
// waits in buffers; even that a process died is not passed on. When the network is healed, what waited goes on, as if it
// had been sent again. A network with a latency delivers each byte so long after it was sent, in order, with up to 1 MiB
// on its way in each direction of a connection.
//
// # Why not otherwise
//
// Closing connections instead would be another fault: a reset is noticed at once, silence is not. Network namespaces
// and firewall rules cut better (no relay acknowledges what nobody gets) but need root; cmd/lorad has a test with them.
package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Node is one end of the network.
type Node struct {
	Name   string
	Listen string // host:port of the relay, which the others dial
	Target string // host:port that the node listens on
	From   string // address that the node's own connections come from
}

// Network is a set of relays. Safe for concurrent use.
type Network struct {
	latency   time.Duration // one way, between nodes
	mu        sync.Mutex
	names     map[string]string // by source address
	apart     []string          // one side of the cut
	changed   chan struct{}     // closed at the next change
	closed    chan struct{}
	listeners []net.Listener
	conns     map[net.Conn]bool
	work      sync.WaitGroup
}

// New returns a network without nodes, whose bytes take so long from one node to another; from callers that are no node, no time.
func New(latency time.Duration) *Network {
	return &Network{
		latency: latency, names: map[string]string{}, changed: make(chan struct{}), closed: make(chan struct{}), conns: map[net.Conn]bool{},
	}
}

// Add starts the relay of a node.
func (n *Network) Add(node Node) error {
	ln, err := net.Listen("tcp", node.Listen)
	if err != nil {
		return fmt.Errorf("relay for %s: %w", node.Name, err)
	}
	n.mu.Lock()
	n.names[node.From] = node.Name
	n.listeners = append(n.listeners, ln)
	n.mu.Unlock()
	n.work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			n.work.Go(func() { n.serve(c.(*net.TCPConn), node) })
		}
	})
	return nil
}

// Cut parts the named nodes from all others. Callers that are no node reach everybody.
func (n *Network) Cut(side []string) { n.set(side) }

// Heal lets everything pass again.
func (n *Network) Heal() { n.set(nil) }

func (n *Network) set(side []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.apart = slices.Clone(side)
	close(n.changed)
	n.changed = make(chan struct{})
}

// Close ends all relays and their connections.
func (n *Network) Close() {
	n.mu.Lock()
	close(n.closed)
	for _, ln := range n.listeners {
		ln.Close()
	}
	for c := range n.conns {
		c.Close()
	}
	n.mu.Unlock()
	n.work.Wait()
}

var errClosed = errors.New("the network is closed")

// pass waits until something may pass between two nodes.
func (n *Network) pass(a, b string) error {
	for {
		n.mu.Lock()
		changed := n.changed
		cut := a != "" && slices.Contains(n.apart, a) != slices.Contains(n.apart, b)
		n.mu.Unlock()
		if !cut {
			return nil
		}
		select {
		case <-changed:
		case <-n.closed:
			return errClosed
		}
	}
}

// keep notes a connection, to be closed with the network.
func (n *Network) keep(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.closed:
		c.Close()
	default:
		n.conns[c] = true
	}
}

func (n *Network) drop(c net.Conn) {
	c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// serve passes one connection on.
func (n *Network) serve(in *net.TCPConn, to Node) {
	n.keep(in)
	defer n.drop(in)
	host, _, _ := net.SplitHostPort(in.RemoteAddr().String())
	n.mu.Lock()
	from := n.names[host]
	n.mu.Unlock()
	if n.pass(from, to.Name) != nil {
		return
	}
	c, err := net.Dial("tcp", to.Target)
	if err != nil {
		in.SetLinger(0) // nobody listens: as good as refused
		return
	}
	out := c.(*net.TCPConn)
	n.keep(out)
	defer n.drop(out)
	var both sync.WaitGroup
	both.Go(func() { n.pump(in, out, from, to.Name) })
	both.Go(func() { n.pump(out, in, from, to.Name) })
	both.Wait()
}

const (
	chunk    = 64 << 10 // bytes
	inFlight = 16       // chunks
)

// parcel is what one read of a connection gave, and when.
type parcel struct {
	data []byte
	err  error
	sent time.Time
}

// pump copies one direction, through cuts, until one of the ends is gone, and passes on how it went.
func (n *Network) pump(src, dst *net.TCPConn, a, b string) {
	way, done := make(chan parcel, inFlight), make(chan struct{})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer src.CloseRead() // lets a read that waits end
	defer close(done)
	reading.Go(func() { n.send(src, way, done) })
	for p := range way {
		if n.travel(p, a, b) != nil {
			return
		}
		if _, err := dst.Write(p.data); err != nil {
			reset(src, dst)
			return
		}
		switch {
		case p.err == nil:
		case errors.Is(p.err, net.ErrClosed):
			return
		case errors.Is(p.err, io.EOF):
			dst.CloseWrite()
			return
		default:
			reset(src, dst)
			return
		}
	}
}

// send puts what a connection brings on its way, until the connection ends or nobody takes it any more.
func (n *Network) send(src *net.TCPConn, way chan<- parcel, done <-chan struct{}) {
	buf := make([]byte, chunk)
	for {
		k, err := src.Read(buf)
		select {
		case way <- parcel{slices.Clone(buf[:k]), err, time.Now()}:
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// travel waits until a parcel has arrived.
func (n *Network) travel(p parcel, a, b string) error {
	if late := n.latency - time.Since(p.sent); a != "" && late > 0 {
		select {
		case <-time.After(late):
		case <-n.closed:
			return errClosed
		}
	}
	return n.pass(a, b)
}

// reset ends both halves at once, as a process that is killed does.
func reset(conns ...*net.TCPConn) {
	for _, c := range conns {
		c.SetLinger(0)
		c.Close()
	}
}
