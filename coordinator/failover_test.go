package coordinator

import (
	"testing"
)

// A node that stands for election is elected although the others have a leader; that is how a dead one is replaced
// before Raft misses it. A leader that answers is left in office.
func TestStandingForElection(t *testing.T) {
	t.Parallel()
	boxes := three(t)
	eventually(t, "three voters", func() bool { v, _ := boxes[0].voters(); return v == 3 })
	old, rest := leader(boxes)
	term := old.raft.CurrentTerm()
	rest[0].doubt(old.ID())
	eventually(t, "the doubt to be settled", func() bool { return !rest[0].doubting.Load() })
	if got := rest[0].raft.CurrentTerm(); got != term || !old.leads() {
		t.Errorf("a leader that answers was deposed: term %d, was %d", got, term)
	}
	rest[0].elect.stand()
	eventually(t, "another leader", func() bool { return rest[0].leads() && rest[1].leader() == rest[0].ID() })
	if a, b := rest[0].placeInLine(old.ID()), rest[1].placeInLine(old.ID()); a+b != 1 {
		t.Errorf("places in line: %d and %d", a, b)
	}
}
