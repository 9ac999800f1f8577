package sched

import (
	"cmp"
	"fmt"
	"slices"
)

const (
	// MostVoters: more make every commit wait for more disks, and five survive the loss of any two.
	MostVoters = 5
	// steadyFor is how long, in ms, a node has to be up before it may vote.
	steadyFor = 1_000
)

// Elector is one node as far as the choice of voters is concerned.
type Elector struct {
	ID, Name string
	Listed   bool // in Raft's configuration
	Votes    bool // there, as a voter
	Removed  bool // thrown out of the cluster
	Eligible bool // may vote
	Witness  bool
	Liveness      // as the leader sees it; the zero Liveness of an unknown node is dead for ever
	Known    bool // whether Liveness says anything
}

// Change is one step of Raft's configuration. Raft makes them one at a time.
type Change struct {
	Kind   ChangeKind
	ID     string
	Reason string
}

// ChangeKind says what becomes of a node. Add makes it a non-voter.
type ChangeKind int

// The kinds of Change.
const (
	NoChange ChangeKind = iota
	Remove
	Add
	Promote
	Demote
)

// NextVoters is the most urgent change: out with the removed, in with the new, then voters. Their number is odd and at
// most MostVoters, because an even number survives no more losses than the odd one below it. A voter that has been
// dead for deadAfter ms is replaced by a node that is up: it is demoted first, which a quorum of the rest has to
// confirm and which never leaves fewer losses to survive than there were; the promotion follows as the next change.
func NextVoters(self string, all []Elector, now, deadAfter int64) Change {
	c := choice{self, now, deadAfter, all}
	for _, e := range all {
		if e.Removed && e.Listed {
			return Change{Remove, e.ID, "it was removed from the cluster"}
		}
	}
	for _, e := range all {
		if !e.Removed && !e.Listed && e.Alive {
			return Change{Add, e.ID, "it joined"}
		}
	}
	return c.voters()
}

type choice struct {
	self      string
	now       int64
	deadAfter int64
	all       []Elector
}

func (c choice) voters() Change {
	n := len(c.where(func(e Elector) bool { return e.Votes }))
	ready := c.ready()
	want := min(n+len(ready), MostVoters)
	want -= 1 - want%2
	dead := c.where(c.longDead)
	switch {
	case n == 0:
		return Change{}
	case want > n || n%2 == 0 && n < MostVoters && len(ready) > 0:
		return Change{Promote, ready[0].ID, fmt.Sprintf("%d of %d voters", n+1, max(want, n+1))}
	case n%2 == 0:
		return c.spare()
	case len(dead) > 0 && len(ready) > 0:
		return Change{Demote, dead[0].ID, fmt.Sprintf("it has been down for %d s, and %s is up", (c.now-dead[0].Since)/1000, ready[0].Name)}
	}
	return Change{}
}

// ready lists who may vote and does not, in order of preference: a witness last, because it cannot enrol.
func (c choice) ready() []Elector {
	list := c.where(func(e Elector) bool {
		return e.Listed && !e.Votes && e.Eligible && e.Known && e.Alive && c.now-e.Since >= steadyFor
	})
	slices.SortStableFunc(list, func(a, b Elector) int {
		return cmp.Or(order(a.Witness, b.Witness), cmp.Compare(a.Since, b.Since), cmp.Compare(a.ID, b.ID))
	})
	return list
}

func (c choice) longDead(e Elector) bool {
	return e.Votes && e.ID != c.self && e.Known && !e.Alive && c.now-e.Since >= c.deadAfter
}

// spare demotes a voter of an even number, after a removal: one that is down if there is one.
func (c choice) spare() Change {
	list := c.where(func(e Elector) bool { return e.Votes && e.ID != c.self })
	slices.SortStableFunc(list, func(a, b Elector) int {
		return cmp.Or(order(a.Alive, b.Alive), cmp.Compare(b.Since, a.Since), cmp.Compare(a.ID, b.ID))
	})
	if len(list) == 0 {
		return Change{}
	}
	return Change{Demote, list[0].ID, "an even number of voters survives no more than one less"}
}

func (c choice) where(is func(Elector) bool) []Elector {
	return slices.DeleteFunc(slices.Clone(c.all), func(e Elector) bool { return !is(e) })
}

// order puts false before true.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
