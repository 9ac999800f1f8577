package sched

import "slices"

// ready reports whether the node could join at once: this process of it said so.
func (p planner) ready(id string) bool {
	for _, r := range p.run.Ready {
		if r.Node == id {
			return r.Boot == p.live[id].Boot
		}
	}
	return false
}

// unfit says why the node cannot do the run's work, or nothing. All of them may write its output.
func (p planner) unfit(id string) string {
	for _, u := range p.run.Unfit {
		if u.Node == id && u.Boot == p.live[id].Boot && !p.finishing() {
			return u.Reason
		}
	}
	return ""
}

// prepared is ids without those who are no members and have still to get ready, if there are others. The home node is
// awaited when all that is missing is its files.
func (p planner) prepared(ids []string) []string {
	able := slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return !slices.Contains(p.run.Lease.Members, id) && !p.ready(id) && !(p.finishing() && id == p.run.HomeNode())
	})
	if len(able) == 0 {
		return ids
	}
	return able
}

// providers lists the nodes that have the run's inputs: its home node and whoever worked on it last.
func (p planner) providers() []string {
	return p.order(append(slices.Clone(p.run.Lease.GetMembers()), p.run.HomeNode()))
}

// provided reports whether at least one of the members has the inputs, to work with and to hand to the others, or a
// live node that drains: it still hands out what it has.
func (p planner) provided(members []string) bool {
	has := p.providers()
	gives := func(id string) bool { return slices.Contains(members, id) || p.alive(id) && p.drains(id) }
	return len(members) > 0 && slices.ContainsFunc(has, gives) || p.abandoned() && slices.ContainsFunc(members, p.ready)
}

// abandoned reports whether all who are known to have the run's newest state have been away for a while. Nodes that are ready to join have the
// inputs and, if they were members before, a state that is not much older; what is missing they compute again, to the same bits.
func (p planner) abandoned() bool {
	return !p.finishing() && !slices.ContainsFunc(p.providers(), func(id string) bool {
		l, known := p.live[id]
		return p.node(id) != nil && (!known || l.Alive || p.now-l.Since < abandonAfter)
	})
}
