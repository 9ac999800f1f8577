package sched

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// electors spells a cluster: one letter a node. V votes, N does not and may, W is a witness that does not vote, v and w
// are a voter and a voting witness that have been down for long, b a voter that is down briefly, n a non-voter that is down, k works only, x was removed
// and still votes, j has joined just now. The first is the leader.
func electors(spell string) []Elector {
	const now = 1_000_000
	var all []Elector
	for i, c := range spell {
		e := Elector{ID: fmt.Sprint(i), Name: fmt.Sprint("node-", i), Listed: true, Eligible: true, Known: true,
			Liveness: Liveness{Alive: true, Since: now - 500_000}}
		switch c {
		case 'V':
			e.Votes = true
		case 'W':
			e.Witness = true
		case 'v', 'w':
			e.Votes, e.Alive, e.Witness = true, false, c == 'w'
		case 'b':
			e.Votes, e.Liveness = true, Liveness{Since: now - 10}
		case 'n':
			e.Alive = false
		case 'k':
			e.Eligible = false
		case 'x':
			e.Votes, e.Removed = true, true
		case 'j':
			e.Listed, e.Since = false, now-10
		}
		all = append(all, e)
	}
	return all
}

func TestNextVoters(t *testing.T) {
	for spell, want := range map[string]Change{
		"V":         {Kind: NoChange},
		"VN":        {Kind: NoChange}, // two voters would survive less than one
		"VNN":       {Kind: Promote, ID: "1"},
		"VWN":       {Kind: Promote, ID: "2"}, // a witness last
		"VVW":       {Kind: Promote, ID: "2"},
		"VVVN":      {Kind: NoChange},
		"VVVNN":     {Kind: Promote, ID: "3"},
		"VVVVVNN":   {Kind: NoChange},
		"VVVkk":     {Kind: NoChange},
		"Vkkkk":     {Kind: NoChange},
		"VVvN":      {Kind: Demote, ID: "2"},
		"VVnN":      {Kind: Promote, ID: "3"}, // and then the other takes its place
		"VVv":       {Kind: NoChange},         // nobody to take its place
		"VVbN":      {Kind: NoChange},         // a reboot
		"VVwNN":     {Kind: Promote, ID: "3"}, // room for two first
		"VV":        {Kind: Demote, ID: "1"},
		"VVVb":      {Kind: Demote, ID: "3"},
		"VVx":       {Kind: Remove, ID: "2"},
		"VVVj":      {Kind: Add, ID: "3"},
		"VVVVVVVNN": {Kind: NoChange}, // more than we would make; never less for its own sake
	} {
		got := NextVoters("0", electors(spell), 1_000_000, 60_000)
		if got.Kind != want.Kind || got.ID != want.ID {
			t.Errorf("%s: %+v, want %+v", spell, got, want)
		}
	}
}

// losses is how many more of the voters that are up the cluster can lose; negative without a quorum.
func losses(all []Elector) int {
	n, up := 0, 0
	for _, e := range all {
		if e.Votes {
			n++
			if e.Alive {
				up++
			}
		}
	}
	return up - n/2 - 1
}

// From any configuration with a quorum the changes come to an end, no change takes the quorum away, none demotes the
// leader, and what is reached is odd, holds no removed node and survives no less than what it began with, if nobody was removed.
func TestVotersSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spell := "V" + rapid.StringOfN(rapid.SampledFrom([]rune("VNWvwbnkxj")), 0, 8, -1).Draw(t, "cluster")
		all := electors(spell)
		if losses(all) < 0 {
			return
		}
		first, thrown := losses(all), slices.ContainsFunc(all, func(e Elector) bool { return e.Removed })
		for range 3 * len(all) {
			c := NextVoters("0", all, 1_000_000, 60_000)
			if c.Kind == NoChange {
				settled(t, spell, all)
				if !thrown && losses(all) < first {
					t.Fatalf("%s: survived %d losses and ends at %d", spell, first, losses(all))
				}
				return
			}
			if c.ID == "0" || c.Reason == "" {
				t.Fatalf("%s: %+v", spell, c)
			}
			all = carriedOut(all, c)
			if losses(all) < 0 && !thrown {
				t.Fatalf("%s: no quorum after %+v", spell, c)
			}
		}
		t.Fatalf("%s: never settles", spell)
	})
}

func carriedOut(all []Elector, c Change) []Elector {
	i := slices.IndexFunc(all, func(e Elector) bool { return e.ID == c.ID })
	switch c.Kind {
	case Remove:
		return slices.Delete(slices.Clone(all), i, i+1)
	case Add:
		all[i].Listed = true
	case Promote:
		all[i].Votes = true
	case Demote:
		all[i].Votes = false
	}
	return all
}

func settled(t *rapid.T, spell string, all []Elector) {
	n, dead, ready := 0, 0, 0
	for _, e := range all {
		switch {
		case e.Removed:
			t.Fatalf("%s: a removed node stays", spell)
		case e.Votes:
			n++
			if !e.Alive && 1_000_000-e.Since > 60_000 {
				dead++
			}
		case e.Eligible && e.Alive && 1_000_000-e.Since >= steadyFor:
			ready++
		}
	}
	if n%2 == 0 || dead > 0 && ready > 0 {
		t.Fatalf("%s: %d voters, %d of them long dead, %d nodes ready", spell, n, dead, ready)
	}
}
