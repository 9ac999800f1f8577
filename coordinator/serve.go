package coordinator

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/proto"
	"lorad/transport"
)

// openServer serves all RPCs on the three ways in: nodes over mutual TLS, strangers who enrol, the owner of this
// machine on the local socket. Who may call what is decided per call, by who calls.
func (c *Coordinator) openServer() error {
	opts := append(transport.ServerOptions(), grpc.UnaryInterceptor(guardUnary), grpc.StreamInterceptor(guardStream))
	c.server = grpc.NewServer(opts...)
	proto.RegisterControlServer(c.server, control{Coordinator: c})
	proto.RegisterCoordinationServer(c.server, coordination{c: c})
	proto.RegisterEnrolServer(c.server, enrolment{c: c})
	proto.RegisterPeerServer(c.server, peerServer{c.cfg.Peer, c.id})
	listeners := []net.Listener{c.cfg.Mux.Listener(transport.GRPC), c.cfg.Mux.Listener(transport.Enrol)}
	if c.cfg.Local != nil {
		listeners = append(listeners, c.cfg.Local)
	}
	for _, ln := range listeners {
		c.work.Go(func() { c.server.Serve(ln) })
	}
	return nil
}

// services says which services a role may call. Strangers may only enrol.
var services = map[ca.Role][]string{
	"":         {proto.Enrol_ServiceDesc.ServiceName},
	ca.Owner:   {proto.Control_ServiceDesc.ServiceName},
	ca.Worker:  nodeServices,
	ca.Voter:   nodeServices,
	ca.Witness: nodeServices,
}

// A node may pass on what it was asked: Control and Enrol.
var nodeServices = []string{
	proto.Control_ServiceDesc.ServiceName, proto.Coordination_ServiceDesc.ServiceName,
	proto.Enrol_ServiceDesc.ServiceName, proto.Peer_ServiceDesc.ServiceName,
}

// guard refuses a call that the caller's role does not allow. method is "/service/name".
func guard(ctx context.Context, method string) error {
	peer, ok := transport.PeerFromContext(ctx)
	if ok {
		for _, s := range services[peer.Role] {
			if strings.HasPrefix(method, "/"+s+"/") {
				return nil
			}
		}
	}
	return status.Errorf(codes.PermissionDenied, "call %s: not allowed without a node's certificate: join the cluster first", method)
}

func guardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := guard(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func guardStream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := guard(s.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, s)
}

// peerServer answers Ping here and leaves bulk bytes to the node.
type peerServer struct {
	proto.PeerServer
	id string
}

func (p peerServer) Ping(context.Context, *proto.PingRequest) (*proto.PingReply, error) {
	return &proto.PingReply{Id: p.id}, nil
}

// coordination is what nodes ask the leader to do.
type coordination struct {
	proto.UnimplementedCoordinationServer
	c *Coordinator
}

// Apply proposes a command for another node. It is not passed on: the caller looks for the leader itself.
func (s coordination) Apply(ctx context.Context, cmd *proto.Command) (*proto.ApplyReply, error) {
	caller, _ := transport.PeerFromContext(ctx)
	if err := s.c.mayPropose(caller.NodeID, cmd); err != nil {
		return nil, err
	}
	reply, err := s.c.propose(cmd)
	if err != nil && (retryable(err) || errors.Is(err, raft.ErrRaftShutdown)) {
		return nil, status.Errorf(codes.Unavailable, "node %s: %v", s.c.id, err)
	}
	return reply, err
}

// mayPropose lets a node speak for itself and pass on what people want. Leases, enrolment and the cluster's keys are
// the leader's own business: one stolen worker must not be able to grant itself anything.
func (c *Coordinator) mayPropose(node string, cmd *proto.Command) error {
	switch do := cmd.GetDo().(type) {
	case *proto.Command_PutNode:
		known := c.fsm.node(node)
		if n := do.PutNode.GetNode(); known != nil && n != nil && n.Id == node {
			n.Voter = known.Voter
			return nil
		}
	case *proto.Command_Report:
		if do.Report.GetNode() == node {
			return nil
		}
	case *proto.Command_PutToken, *proto.Command_RemoveToken, *proto.Command_RemoveNode,
		*proto.Command_SubmitRun, *proto.Command_StopRun, *proto.Command_ResumeRun:
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "apply %T: node %s may not propose this", cmd.GetDo(), node)
}
