package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"lorad/ca"
)

// Bounds of one gRPC message. What nodes say to each other is small: bulk bytes go in chunks of 1 MiB. What a person asks a node for
// may be a run with its whole ledger, some 90 bytes a step, or a list of a thousand runs.
const (
	maxMessage = 16 << 20
	maxReply   = 1 << 30
)

// largeReplies is for clients of people.
func largeReplies() grpc.DialOption {
	return grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply))
}

// keepAlive finds a peer that vanished without a goodbye; only while a call is open.
const keepAlive = 20 * time.Second

// AuthInfo is what gRPC knows of a connection's other end; see PeerFromContext.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Peer ca.Peer
	conn net.Conn
}

// AuthType names the mechanism.
func (AuthInfo) AuthType() string { return "lorad" }

// PeerFromContext returns who makes the call that ctx belongs to: a node; the Owner of this machine on the
// local socket; the zero Peer for a stranger who enrols. It is false if the call came some other way.
func PeerFromContext(ctx context.Context) (ca.Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ca.Peer{}, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	return info.Peer, ok
}

// Vouch is Conn.Vouch for the connection that ctx's call came by.
func Vouch(ctx context.Context, who string) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	if info, ok := p.AuthInfo.(AuthInfo); ok {
		if c, ok := info.conn.(*Conn); ok {
			return c.Vouch(who)
		}
	}
	return nil
}

// authenticated is a connection that knows its peer: *Conn and *localConn.
type authenticated interface{ Peer() ca.Peer }

// passThrough are gRPC credentials for connections that Mux, Dialer or the local socket have authenticated
// already. They refuse all others.
type passThrough struct{}

func (passThrough) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return identified(c)
}

func (passThrough) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return identified(c)
}

func identified(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	a, ok := c.(authenticated)
	if !ok {
		return nil, nil, fmt.Errorf("gRPC over %T: not a connection of this package", c)
	}
	safe := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	return c, AuthInfo{safe, a.Peer(), c}, nil
}

func (passThrough) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "lorad"}
}
func (p passThrough) Clone() credentials.TransportCredentials { return p }
func (passThrough) OverrideServerName(string) error           { return nil }

// ServerOptions are what a grpc.Server needs to serve Listener(GRPC), Listener(Enrol) and the local socket. They
// say who calls and not what a caller may: the server must have an interceptor that goes by PeerFromContext, and
// that keeps the zero Peer, a stranger, to enrolling.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(passThrough{}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxReply),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepAlive / 2}),
	}
}

func clientOptions(dial dialFunc) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(passThrough{}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepAlive, Timeout: keepAlive / 2}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	}
}

type dialFunc = func(context.Context, string) (net.Conn, error)

func newClient(addr string, dial dialFunc, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, append(clientOptions(dial), more...)...)
}

// GRPC returns a client of the node at addr. It connects at the first call and again when the connection broke;
// the text of a failed call's status holds the *Error of dialing.
func (d *Dialer) GRPC(addr string) (*grpc.ClientConn, error) {
	return newClient(addr, func(ctx context.Context, addr string) (net.Conn, error) {
		return d.Dial(ctx, addr, GRPC)
	})
}

// GRPCEnrol returns a stranger's client of the node at addr, already connected, so that the error is an *Error
// of DialEnrol.
func GRPCEnrol(ctx context.Context, addr string, tok ca.JoinToken) (*grpc.ClientConn, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return DialEnrol(ctx, addr, tok) }
	return connectedClient(ctx, opEnrol, addr, dial)
}

// GRPCPeople returns a person's client of the node at addr, already connected. Each call brings the token, to a node of
// the cluster that the token pins and to nobody else.
func GRPCPeople(ctx context.Context, addr string, tok ca.JoinToken) (*grpc.ClientConn, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return dialPinned(ctx, opCall, addr, tok, People)
	}
	return connectedClient(ctx, opCall, addr, dial, grpc.WithPerRPCCredentials(bearer{tok}), largeReplies())
}

// Bearer is what stands before a token in a call's metadata and in HTTP's Authorization header (RFC 6750).
const Bearer = "Bearer "

// bearer brings a token with each call.
type bearer struct{ tok ca.JoinToken }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": Bearer + b.tok.Reveal()}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// GRPCRenew returns a client that can do nothing but have id's certificate renewed, which may have ended.
func GRPCRenew(ctx context.Context, addr string, id *ca.Identity) (*grpc.ClientConn, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		c, err := connect(ctx, nil, addr, withProtos(id.ClientTLS(), Renew))
		if err != nil {
			return nil, failed(opRenew, addr, err)
		}
		return c, nil
	}
	return connectedClient(ctx, opRenew, addr, dial)
}

// connectedClient dials at once, for the error's sake, and gives the client that connection first.
func connectedClient(ctx context.Context, op, addr string, dial dialFunc, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	first := make(chan net.Conn, 1)
	first <- c
	cc, err := newClient(addr, func(ctx context.Context, addr string) (net.Conn, error) {
		select {
		case c := <-first:
			return c, nil
		default: // the first one broke, or was idle for long
			return dial(ctx, addr)
		}
	}, more...)
	if err == nil {
		err = awaitClient(ctx, cc)
	}
	if err != nil {
		c.Close()
		return nil, failed(op, addr, &kindError{NotLorad, err})
	}
	return cc, nil
}

// awaitClient returns once the two ends speak HTTP/2, or closes the client.
func awaitClient(ctx context.Context, cc *grpc.ClientConn) error {
	cc.Connect()
	for {
		s := cc.GetState()
		if s == connectivity.Ready {
			return nil
		}
		if s == connectivity.TransientFailure || !cc.WaitForStateChange(ctx, s) {
			return errors.Join(errors.New("it answers but does not speak gRPC"), ctx.Err(), cc.Close())
		}
	}
}
