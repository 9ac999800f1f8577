package step

import "slices"

// How fast measurements change what is dealt.
const (
	nobody    = -1
	warmedUp  = -1      // in place of a pace: measured once
	settleIn  = 8       // a new measurement moves the pace by an eighth of the difference,
	surprise  = 4       // and counts as at most four times, or a quarter of, what was expected: one hiccup is no straggler
	forgetIn  = 128     // a member that had nothing to do is taken to be 1/128 faster than before, until it is tried again
	slowest   = 1 << 34 // nanoseconds per token, a bound on what others may say
	tolerated = 64      // 1/1024 of a step's time that dealing by the old numbers may cost without any consequence;
	patience  = 256     // what it costs above that adds up, and at so many 1/1024 of a step it is dealt by the new ones
)

// Deal gives each micro-batch to a rank: the largest one first, each to whoever would be done with it first (Graham's
// LPT rule for machines of different speeds). pace is in nanoseconds per token, by rank, and positive. No member could
// then hand its smallest micro-batch on to another and both be done earlier than it was alone.
func Deal(tokens []int, pace []int64) []int {
	owners := make([]int, len(tokens))
	for i := range owners {
		owners[i] = nobody
	}
	deal(owners, make([]int64, len(pace)), tokens, pace)
	return owners
}

// deal completes owners. busy is when each rank begins, in nanoseconds; it is written to.
func deal(owners []int, busy []int64, tokens []int, pace []int64) {
	order := make([]int, 0, len(tokens))
	for micro, owner := range owners {
		if owner == nobody {
			order = append(order, micro)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return tokens[b] - tokens[a] })
	for _, micro := range order {
		work := int64(max(1, tokens[micro]))
		first := 0
		for rank := range busy {
			if busy[rank]+work*pace[rank] < busy[first]+work*pace[first] {
				first = rank
			}
		}
		owners[micro] = first
		busy[first] += work * pace[first]
	}
}

// span is when the last member would be done, in nanoseconds.
func span(owners, tokens []int, pace []int64) int64 {
	busy := make([]int64, len(pace))
	for micro, owner := range owners {
		busy[owner] += int64(max(1, tokens[micro])) * pace[owner]
	}
	return slices.Max(busy)
}

// speeds is what the members of a generation know of each other's speed. It is a function of numbers that all of them
// have: what they told each other when they met, and what came with every sum since.
type speeds struct {
	members  []string
	measured []int64 // nanoseconds per token, smoothed, by rank; 0 or warmedUp = not known yet
	dealt    []int64 // what micro-batches are dealt by: lags behind measured, so that noise moves nothing. Never 0
	regret   int64   // what that has cost, in 1/1024 of a step
}

// meet is what the members of a new generation go by: the numbers of the furthest one, and what a member it does not
// know says of itself.
func meet(members []string, all []Position) speeds {
	top := furthest(all).Pace
	s := speeds{members: members, measured: make([]int64, len(members))}
	for rank, id := range members {
		if s.measured[rank] = top[id]; s.measured[rank] <= 0 {
			s.measured[rank] = all[rank].Pace[id]
		}
		s.measured[rank] = min(max(0, s.measured[rank]), slowest)
	}
	s.dealt = s.expected()
	return s
}

func (s *speeds) table() map[string]int64 {
	var t map[string]int64
	for rank, id := range s.members {
		if s.measured[rank] > 0 {
			if t == nil {
				t = map[string]int64{}
			}
			t[id] = s.measured[rank]
		}
	}
	return t
}

// expected fills the mean in for members that have not been measured.
func (s *speeds) expected() []int64 {
	var sum, n int64
	for _, p := range s.measured {
		if p > 0 {
			sum, n = sum+p, n+1
		}
	}
	out := slices.Clone(s.measured)
	for rank, p := range out {
		if p <= 0 && n > 0 {
			out[rank] = sum / n
		}
		out[rank] = max(1, out[rank])
	}
	return out
}

// measure takes in what each micro-batch of a step took, in microseconds.
func (s *speeds) measure(tokens, owners []int, took []int64) {
	for rank, old := range s.measured {
		var us, work int64
		for micro, owner := range owners {
			if owner == rank && micro < len(took) && took[micro] > 0 && took[micro] < slowest {
				us, work = us+took[micro], work+int64(max(1, tokens[micro]))
			}
		}
		switch {
		case work > 0:
			s.measured[rank] = smooth(old, min(max(1, us*1000/work), slowest))
		case old > 0:
			s.measured[rank] = max(1, old-max(1, old/forgetIn))
		}
	}
}

// smooth moves the pace towards a sample. The very first one counts for nothing: buffers are made and files read in it.
func smooth(old, sample int64) int64 {
	switch old {
	case 0:
		return warmedUp
	case warmedUp:
		return sample
	}
	sample = min(max(sample, old/surprise), old*surprise)
	return max(1, old+(sample-old)/settleIn)
}

// deal gives the micro-batches of a step to ranks. The old numbers stay as long as they deal almost as well as the new
// ones would: the cost of staying, above what is tolerated, is summed up (Page's CUSUM test), so that a large difference
// counts at once, a small one after some steps, and noise never.
func (s *speeds) deal(tokens []int) []int {
	if len(s.members) == 0 || len(tokens) == 0 {
		return nil
	}
	now := s.expected()
	kept, fresh := Deal(tokens, s.dealt), Deal(tokens, now)
	cost, best := span(kept, tokens, now), span(fresh, tokens, now)
	s.regret = max(0, s.regret+(cost-best)*1024/best-tolerated)
	if s.regret < patience {
		return kept
	}
	s.dealt, s.regret = now, 0
	return fresh
}
