package coordinator

import (
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"lorad/transport"
)

// peers keeps one gRPC connection to each node that is talked to.
type peers struct {
	dialer *transport.Dialer
	addr   func(id string) string // "" if unknown

	mu    sync.Mutex
	conns map[string]peerConn // by node id
}

type peerConn struct {
	addr string
	*grpc.ClientConn
}

func newPeers(d *transport.Dialer, addr func(string) string) *peers {
	return &peers{dialer: d, addr: addr, conns: map[string]peerConn{}}
}

// conn returns the connection to a node, a new one if the node has moved. It connects at the first call.
func (p *peers) conn(id string) (*grpc.ClientConn, error) {
	addr := p.addr(id)
	if addr == "" {
		return nil, fmt.Errorf("reach node %s: unknown: it is not in the cluster, or not seen yet", id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old, ok := p.conns[id]
	if ok && old.addr == addr {
		return old.ClientConn, nil
	}
	if ok {
		old.Close()
	}
	fresh, err := p.dialer.GRPC(addr)
	if err != nil {
		return nil, err
	}
	p.conns[id] = peerConn{addr, fresh}
	return fresh, nil
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}
