package state

import "lorad/proto"

// drainNode marks a node that is to hand its work over, or lets it work again. Who drains a node that drains already
// changes nothing, except that what a person wants outlives the node's process and what the process wanted does not.
func (m *Machine) drainNode(d *proto.DrainNode, now int64) (Result, error) {
	old := m.nodes[d.GetId()]
	if old == nil {
		return Result{}, refuse(Unknown, "drain", "node "+d.GetId(), "it is not in the cluster")
	}
	want := d.Drain
	switch {
	case d.Undo && old.Drain == nil, !d.Undo && old.Drain != nil && old.Drain.Boot == "":
		return Result{Node: old}, nil
	case d.Undo:
		want = nil
	case want == nil:
		return Result{}, refuse(Invalid, "drain", "node "+d.Id, "nothing says why")
	default:
		want = &proto.Drain{Reason: clipped(want.Reason), UnixMs: now, Boot: want.Boot}
	}
	n := recorded(old)
	n.Drain = want
	m.nodes[d.Id] = n
	return Result{Node: n}, nil
}

// recorded is a copy of the node whose own fields may be set.
func recorded(n *proto.Node) *proto.Node {
	return &proto.Node{
		Id: n.Id, Name: n.Name, Addr: n.Addr, Voter: n.Voter, Witness: n.Witness, Cores: n.Cores, MemoryBytes: n.MemoryBytes,
		Engine: n.Engine, Version: n.Version, JoinedUnixMs: n.JoinedUnixMs, Drain: n.Drain,
	}
}
