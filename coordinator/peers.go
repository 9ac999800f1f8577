package coordinator

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/proto"
	"lorad/transport"
)

// neighbours is what a node asks of another one: over gRPC (peers), or, in tests, over a network made of nothing.
type neighbours interface {
	apply(ctx context.Context, leader string, cmd *proto.Command) (*proto.ApplyReply, error)
	readIndex(ctx context.Context, leader string) (uint64, error)
	answers(ctx context.Context, id string) bool
}

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

// apply hands the leader a command.
func (p *peers) apply(ctx context.Context, leader string, cmd *proto.Command) (*proto.ApplyReply, error) {
	conn, err := p.conn(leader)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return proto.NewCoordinationClient(conn).Apply(ctx, cmd)
}

// readIndex asks the leader what is agreed on.
func (p *peers) readIndex(ctx context.Context, leader string) (uint64, error) {
	conn, err := p.conn(leader)
	if err != nil {
		return 0, status.Error(codes.Unavailable, err.Error())
	}
	reply, err := proto.NewCoordinationClient(conn).ReadIndex(ctx, &proto.ReadIndexRequest{})
	return reply.GetIndex(), err
}

// answers asks a node whether it is alive.
func (p *peers) answers(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	conn, err := p.conn(id)
	if err != nil {
		return false
	}
	reply, err := proto.NewPeerClient(conn).Ping(ctx, &proto.PingRequest{})
	return err == nil && reply.Id == id
}

// gpus asks a node how its GPUs are.
func (p *peers) gpus(ctx context.Context, id string) []*proto.Gpu {
	conn, err := p.conn(id)
	if err != nil {
		return nil
	}
	reply, err := proto.NewPeerClient(conn).Ping(ctx, &proto.PingRequest{Gpus: true})
	if err != nil {
		return nil
	}
	return reply.Gpus
}
