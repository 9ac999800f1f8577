package step

import "slices"

func (m *Machine) position() Position {
	p := Position{Done: m.done, Evaluated: m.evaluated, Ended: m.ended, Pace: m.speeds.table()}
	for i := range m.work {
		if m.computed[i] {
			p.Computed = append(p.Computed, i)
		}
	}
	return p
}

func (p Plan) workAfter(done uint64) []int {
	if done >= p.Steps {
		return nil
	}
	return p.Work(done)
}

// furthest is the first position that no other is ahead of.
func furthest(all []Position) Position {
	top := all[0]
	for _, p := range all[1:] {
		if p.Done > top.Done {
			top = p
		}
	}
	return top
}

// level says whether all members had done the same steps. After the last step there is no sum in which those that are
// ahead would wait for those that copy from them: they meet once more, or they would be gone before the copy is made.
func level(all []Position) bool {
	for _, p := range all {
		if p.Done != all[0].Done {
			return false
		}
	}
	return true
}

// catchUp takes note that the replica holds the state of top.
func (m *Machine) catchUp(top Position) {
	if m.done != top.Done {
		m.advance(top.Done)
	}
}

// agree takes what every member declared and lays down the common ground of the generation.
func (m *Machine) agree(all []Position) []Action {
	top := furthest(all)
	m.catchUp(top)
	m.evaluated = top.Done
	for _, p := range all {
		if p.Done == top.Done {
			m.evaluated, m.ended = min(m.evaluated, p.Evaluated), p.Ended
		}
	}
	m.ended = m.ended && m.evaluated == top.Done // else it is evaluated once more, with the same result
	m.synced = !m.complete() || level(all)
	m.speeds = meet(m.lease.Members, all)
	return m.claim(all, top.Done)
}

// claim takes over this member's share of the first step.
func (m *Machine) claim(all []Position, done uint64) []Action {
	claims, late := make([][]int, len(all)), make([]bool, len(all))
	for i, p := range all {
		if late[i] = p.Done != done; !late[i] {
			claims[i] = p.Computed
		}
	}
	var keep []bool
	m.owners, keep = Assign(claims, late, m.work, m.speeds.dealt)
	if keep[m.lease.Rank(m.self)] {
		return nil
	}
	clear(m.computed)
	return []Action{Discard{}}
}

// Assign deals the micro-batches of the first step of a generation to members of whom some hold finished ones, by their
// pace (see Deal). A member keeps what it has summed unless a member before it holds one of them too: a sum cannot be
// taken apart, so it then starts afresh. A member that is late has to copy the state first: it is dealt to as if it had
// a large micro-batch to do already, so that the others need not wait for the copy.
// owners[micro] is a rank; keep[rank] says that the member's accumulator stands.
func Assign(claims [][]int, late []bool, tokens []int, pace []int64) (owners []int, keep []bool) {
	owners = make([]int, len(tokens))
	for i := range owners {
		owners[i] = nobody
	}
	keep = make([]bool, len(claims))
	for rank, held := range claims {
		keep[rank] = free(owners, held)
		if !keep[rank] {
			continue
		}
		for _, micro := range held {
			owners[micro] = rank
		}
	}
	busy := make([]int64, len(claims))
	for rank := range busy {
		if late[rank] && len(tokens) > 0 {
			busy[rank] = int64(slices.Max(tokens)) * pace[rank]
		}
	}
	deal(owners, busy, tokens, pace)
	return owners, keep
}

func free(owners []int, held []int) bool {
	for _, micro := range held {
		if micro < 0 || micro >= len(owners) || owners[micro] != nobody {
			return false
		}
	}
	return true
}
