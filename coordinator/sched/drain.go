package sched

import (
	"fmt"
	"slices"

	"lorad/coordinator/state"
)

// drains reports whether the node hands its work over and gets none.
func (p planner) drains(id string) bool { return p.node(id).GetDrain() != nil }

// yielded reports whether all members stand between two steps because one of them leaves.
func (p planner) yielded() bool {
	return p.run.Yielded != 0 && p.run.Yielded == p.run.Lease.GetGeneration() && len(without(p.run.Lease.Members, p.run.YieldedBy)) == 0
}

// excused reports whether a node that drains is left out. A member is left out only when it stands between two steps:
// what it has computed of one would have to be computed again. Whoever writes the output may do so.
func (p planner) excused(id string) bool {
	at := state.Leased(p.run.Phase) && slices.Contains(p.run.Lease.GetMembers(), id) && !p.yielded()
	return p.drains(id) && !at && !p.finishing()
}

// leaving reports whether a member drains: nobody joins before it has left, or it would be in the middle of a step.
func (p planner) leaving() bool { return slices.ContainsFunc(p.run.Lease.Members, p.drains) }

// handOver keeps the members that drain for one generation more if nobody else has the state of the run: the others
// copy it, and the next step is the last one of those that leave.
func (p planner) handOver(ids []string) []string {
	holders := p.staying()
	if len(ids) == 0 || len(without(ids, holders)) < len(ids) {
		return ids
	}
	return append(slices.Clone(ids), slices.DeleteFunc(holders, func(id string) bool { return !p.drains(id) })...)
}

// relieved is ids without those that drain, if there are others.
func (p planner) relieved(ids []string) []string {
	rest := slices.DeleteFunc(slices.Clone(ids), p.drains)
	if len(rest) == 0 {
		return ids
	}
	return rest
}

// unprovided says whom a run waits for that nobody can work on.
func (p planner) unprovided() Decision {
	for _, id := range p.providers() {
		if p.alive(id) && p.drains(id) {
			return wait("waits for a node to work on it: node %s drains (%s)", p.name(id), p.node(id).Drain.Reason)
		}
	}
	for _, u := range p.run.Unfit {
		if p.alive(u.Node) && p.unfit(u.Node) != "" {
			return wait("waits for a node that can work on it: node %s cannot: %s", p.name(u.Node), u.Reason)
		}
	}
	return wait("waits for a node that has its inputs: %s", p.names(p.providers()))
}

func (p planner) leaver() string {
	for _, id := range p.run.Lease.Members {
		if p.drains(id) {
			return fmt.Sprintf("node %s leaves (%s)", p.name(id), p.node(id).Drain.Reason)
		}
	}
	return "a node that was to leave stays"
}
