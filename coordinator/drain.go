package coordinator

import (
	"context"

	"lorad/coordinator/state"
	"lorad/proto"
)

// Drain has a node hand its work over at the next step boundary, or lets it have work again.
func (s control) Drain(ctx context.Context, req *proto.DrainRequest) (*proto.DrainReply, error) {
	n, err := s.findNode(req.Node)
	if err != nil {
		return nil, coded(err)
	}
	reason := req.Reason
	if reason == "" {
		reason = "drained by the user"
	}
	reply, err := s.do(ctx, drain(n.Id, &proto.Drain{Reason: reason}, req.Undo))
	if err != nil {
		return nil, coded(err)
	}
	return &proto.DrainReply{Node: reply.Node}, nil
}

func (c *Coordinator) findNode(name string) (*proto.Node, error) {
	type found struct {
		node *proto.Node
		err  error
	}
	f := read(c.fsm, func(m *state.Machine) (f found) {
		f.node, f.err = m.FindNode(name)
		return f
	})
	return f.node, f.err
}

func drain(id string, why *proto.Drain, undo bool) *proto.Command {
	return &proto.Command{Do: &proto.Command_DrainNode{DrainNode: &proto.DrainNode{Id: id, Drain: why, Undo: undo}}}
}

// Leave has this node hand its work over because its process is to end, or its machine. The next process of the node
// takes that back by itself.
func (c *Coordinator) Leave(ctx context.Context, reason string) error {
	_, err := c.apply(ctx, drain(c.id, &proto.Drain{Reason: reason, Boot: c.boot}, false))
	return err
}

// back takes back what an earlier process of this node said about leaving.
func (c *Coordinator) back(ctx context.Context) error {
	if d := c.fsm.node(c.id).GetDrain(); d.GetBoot() == "" || d.Boot == c.boot {
		return nil
	}
	_, err := c.apply(ctx, drain(c.id, nil, true))
	return err
}
