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

const (
	handshakeTimeout = 5 * time.Second
	maxHandshakes    = 128 // at once; a newcomer takes the place of the oldest
	maxPerNode       = 256 // connections that one node may have opened to us
	maxPerPerson     = 32  // the same of one token
	backlog          = 64  // handshaken connections that wait for Accept, per protocol

	ready = 1 // the byte a server sends when it has accepted the client's certificate
)

// Config says how to listen.
type Config struct {
	Bind      string // host:port; port 0 takes a free one, no host binds all interfaces
	Advertise string // host or host:port that other nodes reach us at; empty: Bind's, or our own address
	Bound     *Bound // if not nil, instead of the two above
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
	guest     map[Proto]*tls.Config
	ports     map[Proto]*port
	pending   crowd            // connections in their handshake
	guests    map[Proto]*crowd // handshaken, of people who have not shown who they are
	conns     peers            // handshaken
	perNode   quota
	perPerson quota

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
	at := c.Bound
	if at == nil {
		var err error
		if at, err = Bind(c.Bind, c.Advertise); err != nil {
			return nil, err
		}
	}
	m := &Mux{
		cfg: c, ln: at.ln, advertise: at.advertise,
		node:    withProtos(c.Identity.ServerTLS(), GRPC, Raft, Gossip, Reduce),
		guest:   map[Proto]*tls.Config{Renew: withProtos(c.Identity.RenewalTLS(), Renew)},
		ports:   map[Proto]*port{},
		pending: crowd{max: maxHandshakes},
		guests:  map[Proto]*crowd{},
		perNode: quota{max: maxPerNode}, perPerson: quota{max: maxPerPerson},
	}
	for p, d := range doors {
		m.guests[p] = &crowd{max: d.max}
		if m.guest[p] == nil {
			m.guest[p] = withProtos(c.Identity.StrangerTLS(), p)
		}
	}
	for _, p := range protos {
		m.ports[p] = newPort(at.ln.Addr())
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

// DisconnectRevoked closes the connections of every node that was revoked.
func (m *Mux) DisconnectRevoked() { m.conns.closeRevoked(m.cfg.Identity) }

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

// configFor decides by the offered protocols alone which certificate is asked for. A client that offers a guest's
// protocol beside a node's is a node; no configuration accepts another's protocols. A browser offers HTTP/2 as well,
// under the name that gRPC has here, and gets HTTP/1.1.
func (m *Mux) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	offered := hello.SupportedProtos
	switch {
	case len(offered) == 0:
		return nil, errors.New("client names no protocol (ALPN)")
	case slices.Contains(offered, string(HTTP)):
		return m.guest[HTTP], nil
	case len(offered) == 1 && m.guest[Proto(offered[0])] != nil:
		return m.guest[Proto(offered[0])], nil
	}
	return m.node, nil
}

func (m *Mux) identify(t *tls.Conn) (*Conn, error) {
	cs := t.ConnectionState()
	c := &Conn{Conn: t, proto: Proto(cs.NegotiatedProtocol)}
	switch c.proto {
	case Enrol:
		return c, nil
	case People, HTTP:
		c.peer = ca.Peer{Role: ca.Visitor}
		return c, nil
	}
	var err error
	if c.peer, err = ca.PeerID(cs); err != nil {
		return nil, err
	}
	if c.proto == Renew {
		c.peer.Role = ca.Lapsed // whatever it was
		return c, nil
	}
	if !slices.Contains(roles[c.proto], c.peer.Role) {
		return nil, fmt.Errorf("node %s: a %s may not open %s", c.peer.NodeID, c.peer.Role, c.proto)
	}
	return c, nil
}

func (m *Mux) route(c *Conn) error {
	m.conns.add(c)
	if err := m.admit(c); err != nil {
		c.Close()
		return err
	}
	if err := m.ports[c.proto].put(c); err != nil {
		c.Close()
		return err
	}
	return nil
}

// admit bounds what one node, and all guests together, can hold on to. It looks again whether the node was revoked:
// that may have come after its certificate was verified and before the connection could be found and closed.
func (m *Mux) admit(c *Conn) error {
	if d, guest := doors[c.proto]; guest {
		m.entertain(c, d)
		return nil
	}
	if r := m.cfg.Identity.Revoked; r != nil && r(c.peer.NodeID) {
		return fmt.Errorf("%w: %s", ca.ErrRevoked, c.peer.NodeID)
	}
	return m.perNode.hold(c, c.peer.NodeID)
}

// entertain gives a guest his time, which ends early for the one who comes when there are too many; see Vouch.
func (m *Mux) entertain(c *Conn, d door) {
	crowd := m.guests[c.proto]
	t := time.AfterFunc(d.patience, func() { c.Close() })
	leave := func() {
		t.Stop()
		crowd.remove(c)
	}
	c.vouch = func(who string) error {
		if err := m.perPerson.hold(c, who); err != nil {
			return err
		}
		leave()
		return nil
	}
	crowd.add(c)
	c.onClose(leave)
}
