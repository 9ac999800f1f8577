package step

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestDealIsFair: every micro-batch has one owner, and no member could hand its smallest one on to another and both be
// done earlier than it is now.
func TestDealIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pace := rapid.SliceOfN(rapid.Int64Range(1, 50_000), 1, 8).Draw(t, "pace")
		tokens := rapid.SliceOfN(rapid.IntRange(0, 4000), 0, 40).Draw(t, "tokens")
		busy, smallest := make([]int64, len(pace)), make([]int64, len(pace))
		owners := Deal(tokens, pace)
		if len(owners) != len(tokens) {
			t.Fatalf("%d owners of %d micro-batches", len(owners), len(tokens))
		}
		for micro, owner := range owners {
			if owner < 0 || owner >= len(pace) {
				t.Fatalf("micro-batch %d belongs to %d", micro, owner)
			}
			work := int64(max(1, tokens[micro]))
			busy[owner] += work * pace[owner]
			if smallest[owner] == 0 || work < smallest[owner] {
				smallest[owner] = work
			}
		}
		for i := range pace {
			for j := range pace {
				if smallest[i] > 0 && busy[j]+smallest[i]*pace[j] < busy[i] {
					t.Fatalf("member %d is done after %d, and %d could take a micro-batch of it and be done after %d", i, busy[i], j, busy[j]+smallest[i]*pace[j])
				}
			}
		}
	})
}

// TestAssignOwnsEachOnce: whatever members claim, every micro-batch has one owner, and whoever keeps its accumulator
// owns exactly what is in it, and more.
func TestAssignOwnsEachOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, micros := rapid.IntRange(1, 5).Draw(t, "members"), rapid.IntRange(0, 9).Draw(t, "micro-batches")
		tokens := rapid.SliceOfN(rapid.IntRange(1, 100), micros, micros).Draw(t, "tokens")
		late := rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, "late")
		pace := rapid.SliceOfN(rapid.Int64Range(1, 100), n, n).Draw(t, "pace")
		claims := make([][]int, n)
		for rank := range claims {
			if !late[rank] {
				claims[rank] = rapid.SliceOfNDistinct(rapid.IntRange(0, 9), 0, 4, rapid.ID[int]).Draw(t, "claims")
			}
		}
		owners, keep := Assign(claims, late, tokens, pace)
		if slices.ContainsFunc(owners, func(o int) bool { return o < 0 || o >= n }) || len(owners) != micros {
			t.Fatalf("owners %v", owners)
		}
		for rank, held := range claims {
			if keep[rank] && slices.ContainsFunc(held, func(micro int) bool { return owners[micro] != rank }) {
				t.Fatalf("member %d keeps %v, owners %v", rank, held, owners)
			}
		}
	})
}

// ring is a cluster that deals step after step by what it measures.
type ring struct {
	speeds
	tokens []int
	true   []int64 // nanoseconds per token
	noise  func(ns int64) int64
	moves  int // steps that were dealt by other numbers than the one before
}

func newRing(members, micros int, noise func(int64) int64) *ring {
	r := &ring{tokens: slices.Repeat([]int{500}, micros), true: slices.Repeat([]int64{2000}, members), noise: noise}
	ids := make([]string, members)
	for i := range ids {
		ids[i] = string(rune('a' + i))
	}
	r.speeds = meet(ids, make([]Position, members))
	return r
}

// step deals, computes and measures one step, and returns the share of each member in per cent.
func (r *ring) step() []int {
	before := slices.Clone(r.dealt)
	owners := r.deal(r.tokens)
	if !slices.Equal(before, r.dealt) {
		r.moves++
	}
	took, share := make([]int64, len(owners)), make([]int, len(r.true))
	for micro, owner := range owners {
		took[micro] = r.noise(int64(r.tokens[micro])*r.true[owner]) / 1000
		share[owner]++
	}
	for rank := range share {
		share[rank] = share[rank] * 100 / len(owners)
	}
	r.measure(r.tokens, owners, took)
	return share
}

func noisy(t *rapid.T) func(int64) int64 {
	rng := rapid.Uint64().Draw(t, "noise")
	return func(ns int64) int64 { // 80 % to 120 %
		rng = rng*6364136223846793005 + 1442695040888963407
		return ns * (800 + int64(rng>>33)%401) / 1000
	}
}

// TestNoiseMovesNothing: equal members whose times vary by a fifth keep what they were dealt.
func TestNoiseMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRing(rapid.IntRange(2, 5).Draw(t, "members"), rapid.SampledFrom([]int{4, 8, 16, 64}).Draw(t, "micro-batches"), noisy(t))
		for range 20 {
			r.step()
		}
		r.moves = 0
		for range 200 {
			r.step()
		}
		if r.moves > 6 {
			t.Fatalf("dealt anew %d times in 200 steps", r.moves)
		}
	})
}

// TestStraggler: a member that becomes ten times slower loses share step by step, and regains it after it has
// recovered; the last member is done nearly as early as the paces allow.
func TestStraggler(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "members")
		r := newRing(n, rapid.SampledFrom([]int{8, 16, 32, 64}).Draw(t, "micro-batches"), noisy(t))
		r.settle(t, 10)
		r.true[n-1] *= 10
		lost := r.settle(t, 25)
		if fair := 100 / (10*(n-1) + 1); lost > fair+100/len(r.tokens) {
			t.Fatalf("it has %d %% of the work where %d %% is fair", lost, fair)
		}
		r.true[n-1] /= 10
		if share := r.settle(t, 400); share < 100/n-200/len(r.tokens)-5 {
			t.Fatalf("it has regained %d %% of the work with %d members", share, n)
		}
	})
}

// settle makes some steps and returns the share of the last member.
func (r *ring) settle(t *rapid.T, steps int) int {
	var share []int
	for range steps {
		share = r.step()
	}
	owners := r.deal(r.tokens)
	if got, best := span(owners, r.tokens, r.true), span(Deal(r.tokens, r.true), r.tokens, r.true); got*2 > best*3 && steps > 1 {
		t.Fatalf("after %d steps the last one is done after %d ns, it could be %d: %v by %v, truly %v", steps, got, best, owners, r.dealt, r.true)
	}
	return share[len(share)-1]
}

// TestHiccup: one step in which a member is a hundred times slower moves little, and not for long.
func TestHiccup(t *testing.T) {
	r := newRing(3, 24, func(ns int64) int64 { return ns })
	for range 10 {
		r.step()
	}
	r.true[2] *= 100
	r.step()
	r.true[2] /= 100
	if share := r.step()[2]; share < 15 {
		t.Errorf("one hiccup left it %d %% of the work", share)
	}
	for range 8 {
		r.step()
	}
	if share := r.step()[2]; share < 25 {
		t.Errorf("ten steps after a hiccup it has %d %% of the work", share)
	}
}
