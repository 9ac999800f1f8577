package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"lorad/ca"
)

// Proto names what is spoken on a connection; it is the ALPN protocol of the handshake.
type Proto string

const (
	GRPC   Proto = "h2"
	Raft   Proto = "lorad-raft/1"
	Gossip Proto = "lorad-gossip/1"
	Reduce Proto = "lorad-reduce/1"
	Enrol  Proto = "lorad-enrol/1" // for strangers: only the server has a certificate
)

// roles says who may open a connection of a protocol. Enrol is not in it: it asks for no certificate.
var roles = map[Proto][]ca.Role{
	GRPC:   {ca.Worker, ca.Voter, ca.Witness},
	Raft:   {ca.Voter, ca.Witness},
	Gossip: {ca.Worker, ca.Voter, ca.Witness},
	Reduce: {ca.Worker, ca.Voter},
}

const (
	handshakeTimeout = 5 * time.Second
	maxHandshakes    = 128              // at once; a newcomer takes the place of the oldest
	maxStrangers     = 64               // enrolling at once; a newcomer takes the place of the oldest
	strangerTimeout  = 60 * time.Second // to enrol in, from handshake to hanging up
	backlog          = 64               // handshaken connections that wait for Accept, per protocol

	ready = 1 // the byte a server sends when it has accepted the client's certificate
)

// Config says how to listen.
type Config struct {
	Bind      string // host:port; port 0 takes a free one, no host binds all interfaces
	Advertise string // host or host:port that other nodes reach us at; empty: Bind's, or our own address
	Identity  *ca.Identity
	// Refused is told of each connection that was turned away, and why; nil is fine. It must not block.
	Refused func(remote net.Addr, err error)

	handshake time.Duration // 0: handshakeTimeout
}

// Mux is a node's one listener. Its Listeners give connections whose handshake is done and whose peer is verified.
type Mux struct {
	cfg       Config
	ln        net.Listener
	advertise string
	node      *tls.Config // for clients that offer a protocol of nodes
	stranger  *tls.Config // for clients that offer Enrol and nothing else
	ports     map[Proto]*port
	pending   crowd // connections in their handshake
	strangers crowd // enrolling
	conns     peers // handshaken

	ctx  context.Context // of the handshakes
	stop context.CancelFunc
	wg   sync.WaitGroup
	once sync.Once
}

// Listen binds and starts accepting. See Config for an advertised address that differs from the bound one.
func Listen(bind string, id *ca.Identity) (*Mux, error) {
	return Config{Bind: bind, Identity: id}.Listen()
}

// Listen binds and starts accepting.
func (c Config) Listen() (*Mux, error) {
	ln, err := net.Listen("tcp", c.Bind)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address or port", c.Bind, err)
	}
	adv, err := advertised(c.Advertise, ln.Addr().(*net.TCPAddr))
	if err != nil {
		ln.Close()
		return nil, err
	}
	m := &Mux{
		cfg: c, ln: ln, advertise: adv,
		node:      withProtos(c.Identity.ServerTLS(), GRPC, Raft, Gossip, Reduce),
		stranger:  withProtos(c.Identity.StrangerTLS(), Enrol),
		ports:     map[Proto]*port{},
		pending:   crowd{max: maxHandshakes},
		strangers: crowd{max: maxStrangers},
	}
	for _, p := range []Proto{GRPC, Raft, Gossip, Reduce, Enrol} {
		m.ports[p] = newPort(ln.Addr())
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.wg.Go(m.accept)
	return m, nil
}

func withProtos(c *tls.Config, protos ...Proto) *tls.Config {
	for _, p := range protos {
		c.NextProtos = append(c.NextProtos, string(p))
	}
	return c
}

// Listener gives the connections of one protocol. There is one per protocol, and it exists from the start:
// what arrives before the first Accept waits.
func (m *Mux) Listener(p Proto) net.Listener { return m.ports[p] }

// Addr is the bound address.
func (m *Mux) Addr() net.Addr { return m.ln.Addr() }

// Advertise is the host:port that other nodes are to reach this one at.
func (m *Mux) Advertise() string { return m.advertise }

// Disconnect closes all connections that a node has opened to us: after it was revoked.
func (m *Mux) Disconnect(nodeID string) { m.conns.closeNode(nodeID) }

// Close stops listening, closes every connection, also those already accepted, and waits for its goroutines.
func (m *Mux) Close() error {
	err := net.ErrClosed
	m.once.Do(func() {
		err = m.ln.Close()
		m.stop()
		m.pending.closeAll()
		for _, p := range m.ports {
			p.Close()
		}
		m.conns.closeAll()
	})
	m.wg.Wait()
	return err
}

func (m *Mux) accept() {
	delay := time.Duration(0)
	for {
		raw, err := m.ln.Accept()
		switch {
		case err == nil:
			delay = 0
			m.pending.add(raw)
			m.wg.Go(func() { m.serve(raw) })
		case m.ctx.Err() != nil:
			return
		default: // out of file descriptors, most likely: it passes
			m.refused(m.ln.Addr(), err)
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			m.pause(delay)
		}
	}
}

func (m *Mux) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-m.ctx.Done():
	}
}

func (m *Mux) refused(remote net.Addr, err error) {
	if m.cfg.Refused != nil && m.ctx.Err() == nil {
		m.cfg.Refused(remote, err)
	}
}

// serve brings one connection from its first byte to its protocol's listener.
func (m *Mux) serve(raw net.Conn) {
	conn, err := m.handshake(raw)
	m.pending.remove(raw)
	if err == nil {
		err = m.route(conn)
	}
	if err != nil {
		raw.Close()
		m.refused(raw.RemoteAddr(), err)
	}
}

// handshake returns the connection with its verified peer, or an error once the time is over.
func (m *Mux) handshake(raw net.Conn) (*Conn, error) {
	raw.SetDeadline(time.Now().Add(cmp.Or(m.cfg.handshake, handshakeTimeout)))
	t := tls.Server(raw, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: m.configFor})
	if err := t.HandshakeContext(m.ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	c, err := m.identify(t)
	if err != nil {
		return nil, err
	}
	if err := c.sayReady(); err != nil {
		return nil, err
	}
	return c, raw.SetDeadline(time.Time{})
}

// configFor decides by the offered protocols alone whether a certificate is asked for. A client that offers
// Enrol beside others is a node; neither configuration accepts the other's protocols.
func (m *Mux) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	switch {
	case len(hello.SupportedProtos) == 0:
		return nil, errors.New("client names no protocol (ALPN)")
	case slices.Equal(hello.SupportedProtos, m.stranger.NextProtos):
		return m.stranger, nil
	}
	return m.node, nil
}

func (m *Mux) identify(t *tls.Conn) (*Conn, error) {
	cs := t.ConnectionState()
	c := &Conn{Conn: t, proto: Proto(cs.NegotiatedProtocol)}
	if c.proto == Enrol {
		return c, nil
	}
	var err error
	if c.peer, err = ca.PeerID(cs); err != nil {
		return nil, err
	}
	if !slices.Contains(roles[c.proto], c.peer.Role) {
		return nil, fmt.Errorf("node %s: a %s may not open %s", c.peer.NodeID, c.peer.Role, c.proto)
	}
	return c, nil
}

func (m *Mux) route(c *Conn) error {
	m.conns.add(c)
	if c.proto == Enrol {
		m.admit(c)
	}
	if err := m.ports[c.proto].put(c); err != nil {
		c.Close()
		return err
	}
	return nil
}

// admit bounds what strangers can hold on to: how many they are, and for how long.
func (m *Mux) admit(c *Conn) {
	m.strangers.add(c)
	t := time.AfterFunc(strangerTimeout, func() { c.Close() })
	c.onClose(func() {
		t.Stop()
		m.strangers.remove(c)
	})
}
