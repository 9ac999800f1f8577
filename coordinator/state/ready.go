package state

import (
	"slices"
	"strings"

	"lorad/proto"
)

// ready notes that a node could join a run that is under way. Who is a member already, or says so too late, changes
// nothing.
func (m *Machine) ready(r *proto.Run, p *proto.Report) (Result, error) {
	if m.nodes[p.Node] == nil {
		return Result{}, refuse(Unknown, "report", "run "+p.Run, "node %s is not in the cluster", p.Node)
	}
	if !Leased(r.Phase) || slices.Contains(r.Lease.Members, p.Node) {
		return Result{Run: m.runs[p.Run]}, nil
	}
	fresh := &proto.Ready{Node: p.Node, Boot: p.Boot}
	i, found := slices.BinarySearchFunc(r.Ready, fresh.Node, func(k *proto.Ready, id string) int { return strings.Compare(k.Node, id) })
	r.Ready = slices.Clone(r.Ready)
	if found {
		r.Ready[i] = fresh
	} else {
		r.Ready = slices.Insert(r.Ready, i, fresh)
	}
	return m.put(r), nil
}
