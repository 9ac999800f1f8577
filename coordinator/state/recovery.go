package state

import (
	"fmt"

	"lorad/proto"
)

// Recover turns the state of a node that has lost its majority into that of a cluster of this node alone. It is no
// command, because there is nobody to agree on it with: it happens while Raft stands still, and lies in the snapshot
// that Raft then begins with. cluster has the id of the next epoch. All tokens are gone: how often the lost nodes let
// somebody in with them is not known.
func (m *Machine) Recover(r *proto.Recovery, cluster *proto.Cluster) error {
	self := r.GetNode().GetId()
	switch {
	case m.nodes[self] == nil:
		return fmt.Errorf("recover: node %q is not in the cluster that this state is of", self)
	case cluster.GetId() == "" || m.cluster.GetId() == cluster.Id:
		return fmt.Errorf("recover: cluster id %q is not a new one", cluster.GetId())
	}
	for _, n := range r.ThrownOut {
		for _, run := range m.Orphans(n.Id) {
			m.put(rehomed(run, n.Name, self, r.UnixMs))
		}
		delete(m.nodes, n.Id)
		m.removed[n.Id] = n.Id
	}
	clear(m.tokens)
	m.cluster = cluster
	m.recoveries = append(m.recoveries, r)
	return nil
}

// Recoveries lists what Recover did, the oldest first.
func (m *Machine) Recoveries() []*proto.Recovery { return m.recoveries }

// Unfinished says of each run that is not over how far it has come.
func (m *Machine) Unfinished() []*proto.RunAt {
	var at []*proto.RunAt
	for _, r := range m.Unsettled() {
		at = append(at, &proto.RunAt{Run: r.Spec.Run, Step: r.Step})
	}
	return at
}
