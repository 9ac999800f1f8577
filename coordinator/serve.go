package coordinator

import (
	"context"
	"errors"
	"net"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/proto"
	"lorad/transport"
)

// openServer serves all RPCs on every way in: nodes over mutual TLS, strangers who enrol, nodes whose certificate has
// ended, people from elsewhere, the owner of this machine on the local socket; and some of them as HTTP. Who may call
// what is decided per call, by who calls.
func (c *Coordinator) openServer() error {
	opts := append(transport.ServerOptions(), grpc.UnaryInterceptor(c.guardUnary), grpc.StreamInterceptor(c.guardStream))
	c.server = grpc.NewServer(opts...)
	proto.RegisterControlServer(c.server, control{Coordinator: c})
	proto.RegisterCoordinationServer(c.server, coordination{c: c})
	proto.RegisterEnrolServer(c.server, enrolment{c: c})
	proto.RegisterPeerServer(c.server, peerServer{c.cfg.Peer, c})
	var listeners []net.Listener
	for _, p := range []transport.Proto{transport.GRPC, transport.Enrol, transport.Renew, transport.People} {
		listeners = append(listeners, c.cfg.Mux.Listener(p))
	}
	if c.cfg.Local != nil {
		listeners = append(listeners, c.cfg.Local)
	}
	for _, ln := range listeners {
		c.work.Go(func() { c.server.Serve(ln) })
	}
	c.web = c.webServer()
	c.work.Go(func() { c.web.Serve(c.cfg.Mux.Listener(transport.HTTP)) })
	return nil
}

// peerServer answers Ping here and leaves bulk bytes to the node.
type peerServer struct {
	proto.PeerServer
	c *Coordinator
}

func (p peerServer) Ping(_ context.Context, req *proto.PingRequest) (*proto.PingReply, error) {
	_, index := p.c.fsm.next()
	reply := &proto.PingReply{Id: p.c.id, Index: index}
	if req.Gpus {
		reply.Gpus = p.c.gpus()
	}
	return reply, nil
}

// gpus is how this machine's GPUs are now.
func (c *Coordinator) gpus() []*proto.Gpu {
	if c.cfg.GPUs == nil {
		return nil
	}
	return c.cfg.GPUs()
}

// coordination is what nodes ask the leader to do.
type coordination struct {
	proto.UnimplementedCoordinationServer
	c *Coordinator
}

// ReadIndex is for a node that is to answer a question of the present.
func (s coordination) ReadIndex(_ context.Context, _ *proto.ReadIndexRequest) (*proto.ReadIndexReply, error) {
	index, err := s.c.confirm()
	return &proto.ReadIndexReply{Index: index}, s.passable(err)
}

// passable is the error of something that another leader may do in a moment, in a form that the caller understands.
func (s coordination) passable(err error) error {
	if err != nil && (retryable(err) || errors.Is(err, raft.ErrRaftShutdown)) {
		return status.Errorf(codes.Unavailable, "node %s: %v", s.c.id, err)
	}
	return err
}

// Apply proposes a command for another node. It is not passed on: the caller looks for the leader itself.
func (s coordination) Apply(ctx context.Context, cmd *proto.Command) (*proto.ApplyReply, error) {
	caller, _ := transport.PeerFromContext(ctx)
	if err := s.c.mayPropose(caller, cmd); err != nil {
		return nil, err
	}
	reply, err := s.c.propose(cmd)
	return reply, s.passable(err)
}
