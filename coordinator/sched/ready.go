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
