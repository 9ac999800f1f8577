package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"lorad/ca"
	"lorad/proto"
	"lorad/transport"
)

// client speaks to a node over its local socket.
type client struct {
	proto.ControlClient
	conn *grpc.ClientConn
}

func (c *client) Close() error { return c.conn.Close() }

// dial reaches the node whose state directory is dir.
func dial(ctx context.Context, dir string) (*client, error) {
	conn, err := transport.DialLocal(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &client{proto.NewControlClient(conn), conn}, nil
}

// dial reaches the node that --server names, or this machine's.
func (a *app) dial() (*client, error) {
	if a.server == "" {
		return dial(a.ctx, a.dir)
	}
	tok, err := savedToken(a.server)
	if err != nil {
		return nil, err
	}
	return dialServer(a.ctx, a.server, tok)
}

// dialServer reaches a node from elsewhere.
func dialServer(ctx context.Context, addr string, tok ca.JoinToken) (*client, error) {
	conn, err := transport.GRPCPeople(ctx, addr, tok)
	if err != nil {
		return nil, err
	}
	return &client{proto.NewControlClient(conn), conn}, nil
}

// running says whether dial failed because no node runs there.
func notRunning(err error) bool {
	var e *transport.Error
	return errors.As(err, &e) && e.Kind == transport.NotRunning
}

// names maps node ids to the names people gave them.
func (c *client) names(ctx context.Context) (map[string]string, error) {
	reply, err := c.Cluster(ctx, &proto.ClusterRequest{})
	if err != nil {
		return nil, err
	}
	return namesOf(reply), nil
}

func namesOf(reply *proto.ClusterReply) map[string]string {
	out := map[string]string{}
	for _, n := range reply.Nodes {
		out[n.Node.Id] = n.Node.Name
	}
	return out
}

// follow shows a run until it ends or ctx does, and returns its last state.
func (c *client) follow(ctx context.Context, run string, after uint64, p interface{ show(*proto.FollowEvent) }) (*proto.Run, error) {
	stream, err := c.Follow(ctx, &proto.FollowRequest{Run: run, AfterStep: after})
	if err != nil {
		return nil, err
	}
	var last *proto.Run
	for {
		e, err := stream.Recv()
		if err != nil {
			if last != nil && ended(last.Phase) {
				return last, nil
			}
			return last, err
		}
		last = e.Run
		p.show(e)
		if ended(last.Phase) {
			return last, nil
		}
	}
}

func ended(p proto.Phase) bool {
	return p == proto.Phase_DONE || p == proto.Phase_FAILED || p == proto.Phase_STOPPED
}

// outcome turns the last state of a run into an error if it did not end well.
func outcome(r *proto.Run) error {
	if r.Phase == proto.Phase_FAILED {
		return &exitError{exitFailed, fmt.Errorf("run %s failed at step %d of %d: %s", r.Spec.Run, r.Step, r.Spec.Steps, r.Reason)}
	}
	return nil
}
