package ca

import "testing"

func TestEpochs(t *testing.T) {
	for id, want := range map[string]string{"ab12": "ab12-2", "ab12-2": "ab12-3", "ab12-9": "ab12-10", "my-cluster": "my-cluster-2", "my-1": "my-1-2", "7": "7-2"} {
		if got := NextEpoch(id); got != want || Epoch(got) != Epoch(id)+1 {
			t.Errorf("after %s comes %s, want %s", id, got, want)
		}
	}
}

// A node of a later epoch is known by the authority's key. Nobody else can claim to be one.
func TestSuperseded(t *testing.T) {
	a, err := New("ab12")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(a *Authority) *Identity {
		id, err := a.Issue(Subject{ClusterID: a.ClusterID(), NodeID: "n1", Role: Voter})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	next, err := a.Renamed(NextEpoch(a.ClusterID()))
	if err != nil {
		t.Fatal(err)
	}
	forger, err := New("ab12-2")
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := issue(a), issue(next)
	if next.Pin() != a.Pin() {
		t.Error("tokens do not pin the renamed authority")
	}
	if !old.Superseded(fresh.leaf()) {
		t.Error("the next epoch is not recognised")
	}
	if fresh.Superseded(old.leaf()) || old.Superseded(old.leaf()) || old.Superseded(issue(forger).leaf()) {
		t.Error("an older epoch, the same one or a forger supersedes")
	}
}
