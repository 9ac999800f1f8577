package state

import (
	"fmt"
	"maps"
	"strings"

	"lorad/proto"
)

// FindNode returns the node that people call name: its id, its name, or a prefix of the id that only it has.
func (m *Machine) FindNode(name string) (*proto.Node, error) {
	if n := m.nodes[name]; n != nil {
		return n, nil
	}
	var found []*proto.Node
	for _, n := range m.Nodes() {
		if n.Name == name {
			return n, nil
		}
		if name != "" && strings.HasPrefix(n.Id, name) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, refuse(Unknown, "find", "node "+name, "no node has this id or name: `lorad nodes` lists them")
	}
	return nil, refuse(Ambiguous, "find", "node "+name, "%d ids begin so: give more of it", len(found))
}

// removeNode forgets the node for ever. The heir becomes home of its unfinished runs, so that their output has a place.
func (m *Machine) removeNode(p *proto.RemoveNode, now int64) (Result, error) {
	n := m.nodes[p.GetId()]
	switch {
	case m.Removed(p.GetId()):
		return Result{}, nil // the same command again, because its first reply was lost with a leader
	case n == nil:
		return Result{}, refuse(Unknown, "remove", "node "+p.GetId(), "it is not in the cluster")
	case len(m.nodes) == 1:
		return Result{}, refuse(Illegal, "remove", "node "+n.Name, "it is the only node: stop it and delete its state directory instead")
	}
	left := m.Orphans(p.Id)
	if heir := m.nodes[p.Heir]; len(left) > 0 && (heir == nil || heir.Witness || p.Heir == p.Id) {
		return Result{}, refuse(Illegal, "remove", "node "+n.Name, "it is the home of run %s, and there is no node to write its output instead", left[0].Spec.Run)
	}
	for _, r := range left {
		m.put(rehomed(r, n.Name, p.Heir, now))
	}
	delete(m.nodes, p.Id)
	m.removed[p.Id] = p.Id
	// Whoever took the node over may have made itself a way back in.
	maps.DeleteFunc(m.tokens, func(_ string, t *proto.Token) bool { return t.MadeBy == p.Id })
	return Result{Node: n}, nil
}

// Orphans lists the runs that would have no home without the node: those that may yet have output to write.
func (m *Machine) Orphans(node string) []*proto.Run {
	var runs []*proto.Run
	for _, r := range m.Runs() {
		if r.HomeNode() == node && r.Phase != proto.Phase_DONE {
			runs = append(runs, r)
		}
	}
	return runs
}

// rehomed is the run with another home. What never began has its inputs on the old one only, and fails until somebody
// who has them submits it again. A run that only waits for its output to be written needs a new ring that writes it.
func rehomed(old *proto.Run, gone, heir string, now int64) *proto.Run {
	r := mutable(old)
	r.Home = heir
	switch {
	case r.Lease == nil && r.Phase == proto.Phase_PENDING:
		why := fmt.Sprintf("its home node %s was removed before anybody had its inputs: submit it again from another node", gone)
		move(r, proto.Phase_FAILED, why, now)
	case Leased(r.Phase) && r.Step == r.LastStep() && r.Trouble.GetGeneration() != r.Lease.Generation:
		r.Trouble = &proto.Trouble{
			Generation: r.Lease.Generation, Node: heir, Detail: "node " + gone + " was removed, which was to write the output",
			UnixMs: now, InARow: 1,
		}
	}
	return r
}
