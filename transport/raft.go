package transport

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// RaftLayer carries Raft between voters: a raft.StreamLayer for raft.NewNetworkTransport.
type RaftLayer struct {
	net.Listener
	advertise address
	dialer    *Dialer
}

var _ raft.StreamLayer = (*RaftLayer)(nil)

// NewRaftLayer returns Raft's way in (m) and out (d).
func NewRaftLayer(m *Mux, d *Dialer) *RaftLayer {
	return &RaftLayer{Listener: m.Listener(Raft), advertise: address(m.Advertise()), dialer: d}
}

// Addr is the advertised address: Raft tells it to the others.
func (r *RaftLayer) Addr() net.Addr { return r.advertise }

// Dial connects to the node at addr.
func (r *RaftLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return r.dialer.Dial(ctx, string(addr), Raft)
}
