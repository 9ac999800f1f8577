package coordinator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"lorad/coordinator/sched"
	"lorad/proto"
)

// replaceVoterAfter is how long a voter is down before another node votes in its place: longer than a reboot.
const replaceVoterAfter = 3 * time.Minute

// reconcile makes one change that brings Raft's configuration closer to the recorded nodes.
func (r reign) reconcile(ctx context.Context, nodes []*proto.Node) (done bool) {
	f := r.raft.GetConfiguration()
	if f.Error() != nil {
		return false
	}
	servers := f.Configuration().Servers
	r.sparing(servers, "")
	after := r.cfg.ReplaceVoterAfter
	if after == 0 {
		after = replaceVoterAfter
	}
	change := sched.NextVoters(r.id, r.electors(nodes, servers), r.now().UnixMilli(), after.Milliseconds())
	if change.Kind == sched.NoChange || !r.fit(ctx, change) {
		return false
	}
	if change.Kind == sched.Promote {
		r.sparing(servers, change.ID)
	}
	what := fmt.Sprintf("%s %s: %s", verbs[change.Kind], r.name(change.ID), change.Reason)
	if err := r.change(change).Error(); err != nil {
		r.log.Warn("raft configuration was not changed", "change", what, "err", err)
		return false
	}
	r.log.Info("raft configuration changed", "change", what)
	return true
}

var verbs = map[sched.ChangeKind]string{sched.Remove: "without", sched.Add: "with", sched.Promote: "voter", sched.Demote: "no voter"}

// fit asks a node that is to vote whether it is there: a second voter that is gone would be a quorum lost. A leader
// that is to go hands over instead, and its successor makes the change.
func (r reign) fit(ctx context.Context, c sched.Change) bool {
	switch c.Kind {
	case sched.Promote:
		r.ping(ctx, []string{c.ID})
		return r.gossip.alive(c.ID)
	case sched.Remove, sched.Demote:
		if c.ID == r.id {
			r.handOver("it leaves the cluster")
			return false
		}
	}
	return true
}

func (r reign) change(c sched.Change) raft.IndexFuture {
	s := server(c.ID)
	switch c.Kind {
	case sched.Remove:
		return r.raft.RemoveServer(s.ID, 0, proposeTimeout)
	case sched.Promote:
		return r.raft.AddVoter(s.ID, s.Address, 0, proposeTimeout)
	case sched.Demote:
		return r.raft.DemoteVoter(s.ID, 0, proposeTimeout)
	}
	return r.raft.AddNonvoter(s.ID, s.Address, 0, proposeTimeout)
}

// electors is what the choice of voters depends on: everybody who is recorded or in Raft's configuration.
func (c *Coordinator) electors(nodes []*proto.Node, servers []raft.Server) []sched.Elector {
	var all []sched.Elector
	for _, n := range nodes {
		l, known := c.gossip.elector(n.Id)
		all = append(all, sched.Elector{
			ID: n.Id, Name: n.Name, Eligible: n.Voter, Witness: n.Witness, Liveness: l, Known: known,
		})
	}
	for _, s := range servers {
		i := slices.IndexFunc(all, func(e sched.Elector) bool { return e.ID == string(s.ID) })
		if i < 0 {
			i = len(all)
			all = append(all, sched.Elector{ID: string(s.ID), Removed: c.fsm.removed(string(s.ID))})
		}
		all[i].Listed, all[i].Votes = true, s.Suffrage == raft.Voter
	}
	return all
}

func (c *Coordinator) name(id string) string {
	if n := c.fsm.node(id); n != nil {
		return n.Name
	}
	return id
}

// yield has a witness hand leadership to a voter that works, if one is up: a witness cannot enrol, and its machine may
// be a small one.
func (r reign) yield() {
	if !r.facts.Witness {
		return
	}
	for _, id := range r.voterIDs() {
		if n := r.fsm.node(id); n != nil && !n.Witness && r.gossip.alive(id) {
			r.handOver("it is a witness")
			return
		}
	}
}

// handOver makes the most advanced other voter the leader. Now and then: it may not be possible.
func (r reign) handOver(why string) {
	if r.now().Sub(*r.passed) < time.Second {
		return
	}
	*r.passed = r.now()
	if err := r.raft.LeadershipTransfer().Error(); err != nil {
		r.log.Info("leadership was not handed over", "why", why, "err", err)
		return
	}
	r.log.Info("leadership handed over", "why", why)
}
