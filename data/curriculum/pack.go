package curriculum

import (
	"fmt"
	"slices"
	"sort"
)

// Pack fills rows of at most capacity tokens with whole examples, which have lengths (capacity or less each; a longer one
// has a row of its own): best fit decreasing, as TRL's packing does. The longest example comes first, ties by index, and
// goes where the least room is left for it, ties to the oldest row. Row r lists the examples of which it consists.
//
// What is in one row has no other meaning than that it is counted as one: examples keep their positions and see nothing of
// each other. So the mean difficulty of a row is all that the order of training has to know of it.
func Pack(lengths []int, capacity int) [][]int {
	order := make([]int, len(lengths))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return lengths[order[a]] > lengths[order[b]] })
	var rows [][]int
	room := make([][]int, max(capacity, 0)+1) // rows by the tokens that are left in them, the oldest first
	least := capacity                         // no row has less room than that, but more than none
	for _, i := range order {
		row, left := len(rows), capacity
		for free := max(lengths[i], least); free <= capacity; free++ {
			if len(room[free]) > 0 {
				row, left = room[free][0], free
				room[free] = room[free][1:]
				break
			}
		}
		if row == len(rows) {
			rows = append(rows, nil)
		}
		rows[row] = append(rows[row], i)
		if left -= lengths[i]; left > 0 {
			at, _ := slices.BinarySearch(room[left], row)
			room[left] = slices.Insert(room[left], at, row)
			least = min(least, left)
		}
	}
	return rows
}

// NewPacked plans a run over rows of examples instead of single ones: GlobalBatch and MicroBatch count rows, and the
// difficulty of a row is the mean of its examples'. Batch lists examples as ever.
func NewPacked(s Spec, difficulty []float64, rows [][]int) (*Plan, error) {
	mean := make([]float64, len(rows))
	for r, row := range rows {
		for _, i := range row {
			if i < 0 || i >= len(difficulty) {
				return nil, fmt.Errorf("plan curriculum: row %d: invalid: example %d of %d", r, i, len(difficulty))
			}
			mean[r] += difficulty[i]
		}
		mean[r] /= float64(len(row))
	}
	p, err := New(s, mean)
	if err != nil {
		return nil, err
	}
	p.rows = rows
	return p, nil
}

// contents lists the examples in units of the plan, which are rows or examples.
func (p *Plan) contents(units []int) []int {
	if p.rows == nil {
		return append([]int(nil), units...)
	}
	var out []int
	for _, r := range units {
		out = append(out, p.rows[r]...)
	}
	return out
}
