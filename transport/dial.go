package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"lorad/ca"
)

// dialTimeout bounds a Dial whose context has no earlier deadline: TCP connection and handshake together.
const dialTimeout = 5 * time.Second

const (
	opDial  = "dial"
	opEnrol = "enrol at"
	opLocal = "dial local node"
	opReach = "reach back"
	opRenew = "renew certificate at"
	opCall  = "call"
)

// Dialer opens connections from this node to others. Safe for concurrent use.
type Dialer struct {
	// From is the address that connections come from; nil: the system chooses. Set it before the first dial.
	From  net.IP
	id    *ca.Identity
	conns peers
}

// NewDialer returns a dialer that shows id's certificate.
func NewDialer(id *ca.Identity) *Dialer { return &Dialer{id: id} }

// Dial connects to any node of our cluster at addr (host:port). When it returns, both ends have verified each
// other. The connection is a *Conn; the error is an *Error.
func (d *Dialer) Dial(ctx context.Context, addr string, p Proto) (net.Conn, error) {
	return d.DialNode(ctx, addr, "", p)
}

// DialNode is Dial, and fails with WrongNode unless it is nodeID that answers ("" accepts any).
func (d *Dialer) DialNode(ctx context.Context, addr, nodeID string, p Proto) (net.Conn, error) {
	c, err := d.dial(ctx, addr, nodeID, p)
	if err != nil {
		return nil, failed(opDial, addr, err)
	}
	d.conns.add(c)
	if r := d.id.Revoked; r != nil && r(c.peer.NodeID) { // while we were connecting
		c.Close()
		return nil, failed(opDial, addr, fmt.Errorf("%w: %s", ca.ErrRevoked, c.peer.NodeID))
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, addr, nodeID string, p Proto) (*Conn, error) {
	if _, ok := roles[p]; !ok {
		return nil, fmt.Errorf("protocol %q is not one between nodes", p)
	}
	if d.id.Expired(time.Now()) {
		return nil, &kindError{Expired, fmt.Errorf("it ended on %s", d.id.NotAfter().UTC().Format(time.DateOnly))}
	}
	cfg := withProtos(d.id.ClientTLS(), p)
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return err
		}
		return checkPeer(cs, nodeID, p)
	}
	c, err := connect(ctx, d.From, addr, cfg)
	return c, d.superseded(err)
}

// superseded tells a node of a later epoch of our cluster from one of another cluster.
func (d *Dialer) superseded(err error) error {
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) && len(unverified.UnverifiedCertificates) > 0 && d.id.Superseded(unverified.UnverifiedCertificates[0]) {
		return &kindError{Recovered, err}
	}
	return err
}

// checkPeer runs on a verified node of our cluster, before our certificate is shown.
func checkPeer(cs tls.ConnectionState, nodeID string, p Proto) error {
	if err := checkProto(cs, p); err != nil {
		return err
	}
	peer, err := ca.PeerID(cs)
	if err == nil && nodeID != "" && peer.NodeID != nodeID {
		err = &kindError{WrongNode, fmt.Errorf("node %s answered, want %s", peer.NodeID, nodeID)}
	}
	return err
}

func checkProto(cs tls.ConnectionState, p Proto) error {
	if cs.NegotiatedProtocol != string(p) {
		return &kindError{NotLorad, fmt.Errorf("a TLS server that does not speak %s", p)}
	}
	return nil
}

// Disconnect closes all connections that we have opened to a node: after it was revoked.
func (d *Dialer) Disconnect(nodeID string) { d.conns.closeNode(nodeID) }

// DisconnectRevoked closes the connections to every node that was revoked.
func (d *Dialer) DisconnectRevoked() { d.conns.closeRevoked(d.id) }

// Close closes all connections that we have opened; later ones are closed at once.
func (d *Dialer) Close() error {
	d.conns.closeAll()
	return nil
}

// DialEnrol connects a stranger to a node of the cluster that made the token. Before anything is sent beyond
// the TLS hello, the server has proved that its certificate was signed by the key that the token pins. The
// connection is a *Conn; the error is an *Error.
func DialEnrol(ctx context.Context, addr string, tok ca.JoinToken) (net.Conn, error) {
	return dialPinned(ctx, opEnrol, addr, tok, Enrol)
}

// dialPinned connects without a certificate to a node of the cluster whose authority a token pins.
func dialPinned(ctx context.Context, op, addr string, tok ca.JoinToken, p Proto) (net.Conn, error) {
	cfg := withProtos(&tls.Config{
		MinVersion: tls.VersionTLS13,
		// There is no authority to trust yet but the one that the token pins: VerifyConnection does it all.
		InsecureSkipVerify: true,
		VerifyConnection:   func(cs tls.ConnectionState) error { return verifyPinned(cs, tok, p) },
	}, p)
	c, err := connect(ctx, nil, addr, cfg)
	if err != nil {
		return nil, failed(op, addr, err)
	}
	return c, nil
}

// verifyPinned accepts a server whose certificate leads to one, in the chain it sent, with the pinned key.
func verifyPinned(cs tls.ConnectionState, tok ca.JoinToken, p Proto) error {
	if err := checkProto(cs, p); err != nil {
		return err
	}
	leaf, chain := cs.PeerCertificates[0], cs.PeerCertificates[1:]
	i := slices.IndexFunc(chain, tok.Pins)
	if i < 0 {
		return &kindError{PinMismatch, errors.New("the node's cluster is not the one that the token names")}
	}
	roots := x509.NewCertPool()
	roots.AddCert(chain[i])
	peer, err := ca.PeerID(cs)
	if err != nil {
		return &kindError{NotLorad, err}
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: ca.ServerName(peer.ClusterID)})
	return pinnedError(err)
}

func pinnedError(err error) error {
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return &kindError{Clock, err}
	}
	return &kindError{PinMismatch, err}
}

// connect dials, shakes hands and waits for the server's judgement, within the context and dialTimeout.
func connect(ctx context.Context, from net.IP, addr string, cfg *tls.Config) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	if from != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: from}
	}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, &kindError{Unreachable, err}
	}
	c, err := handshake(ctx, raw, cfg)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

func handshake(ctx context.Context, raw net.Conn, cfg *tls.Config) (*Conn, error) {
	t := tls.Client(raw, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	c := &Conn{Conn: t, proto: Proto(cfg.NextProtos[0])}
	if peer, err := ca.PeerID(t.ConnectionState()); err == nil {
		c.peer = peer
	}
	// The context ends the wait for the ready byte too; afterwards it has no power over the connection.
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Now()) })
	err := c.awaitReady()
	if !stop() {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	return c, err
}
