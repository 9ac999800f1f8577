package coordinator

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/coordinator/state"
	"lorad/proto"
)

// RemoveNode throws a node out of the cluster for ever. Its unfinished runs move to a node that is up.
func (s control) RemoveNode(ctx context.Context, req *proto.RemoveNodeRequest) (*proto.RemoveNodeReply, error) {
	n, orphans, err := s.leaving(req.Node)
	if err != nil {
		return nil, err
	}
	if err := s.mayLose(n); err != nil {
		return nil, err
	}
	remove := &proto.RemoveNode{Id: n.Id, Heir: s.heir(n.Id)}
	if _, err := s.do(ctx, &proto.Command{Do: &proto.Command_RemoveNode{RemoveNode: remove}}); err != nil {
		return nil, coded(err)
	}
	return &proto.RemoveNodeReply{Node: n, MovedRuns: orphans, Heir: remove.Heir}, nil
}

// leaving is the node that people call name, and the ids of the runs that it is the home of.
func (s control) leaving(name string) (*proto.Node, []string, error) {
	type found struct {
		node *proto.Node
		runs []string
		err  error
	}
	f := read(s.fsm, func(m *state.Machine) (f found) {
		if f.node, f.err = m.FindNode(name); f.err == nil {
			for _, r := range m.Orphans(f.node.Id) {
				f.runs = append(f.runs, r.Spec.Run)
			}
		}
		return f
	})
	return f.node, f.runs, coded(f.err)
}

// mayLose refuses to remove a voter whose vote the cluster needs now.
func (s control) mayLose(n *proto.Node) error {
	left, up, votes := 0, 0, false
	for _, id := range s.voterIDs() {
		if id == n.Id {
			votes = true
			continue
		}
		left++
		if s.gossip.alive(id) {
			up++
		}
	}
	if votes && up <= left/2 {
		return status.Errorf(codes.FailedPrecondition, "remove node %s: no quorum without it: %d of the %d other voters are up; start them again, or let another node join first", n.Name, up, left)
	}
	return nil
}

// heir is the node that takes over what a leaving one is home of: this one, or else any that is up and works.
func (s control) heir(leaving string) string {
	heir := ""
	for _, n := range s.Nodes() {
		if n.Id != leaving && !n.Witness && s.gossip.alive(n.Id) && (heir == "" || n.Id == s.id) {
			heir = n.Id
		}
	}
	return heir
}
