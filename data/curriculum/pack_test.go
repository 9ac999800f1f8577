package curriculum

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// dumbPack is Pack without its index of what is left where.
func dumbPack(lengths []int, capacity int) [][]int {
	var order []int
	for i := range lengths {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return lengths[b] - lengths[a] })
	var rows [][]int
	var left []int
	for _, i := range order {
		best := -1
		for r, l := range left {
			if l >= lengths[i] && (best < 0 || l < left[best]) {
				best = r
			}
		}
		if best < 0 {
			best, rows, left = len(rows), append(rows, nil), append(left, capacity)
		}
		rows[best], left[best] = append(rows[best], i), left[best]-lengths[i]
	}
	return rows
}

func TestPackIsBestFitDecreasing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 60).Draw(t, "capacity")
		lengths := rapid.SliceOfN(rapid.IntRange(1, capacity), 0, 80).Draw(t, "lengths")
		if got, want := Pack(lengths, capacity), dumbPack(lengths, capacity); !reflect.DeepEqual(got, want) {
			t.Fatalf("%v in rows of %d: %v, want %v", lengths, capacity, got, want)
		}
	})
	if got := Pack([]int{3, 9, 2}, 5); !reflect.DeepEqual(got, [][]int{{1}, {0, 2}}) {
		t.Errorf("an example that is too long: %v", got)
	}
}

// Rows are what is counted and shuffled; every example is in exactly one step of each epoch all the same.
func TestPackedPlan(t *testing.T) {
	lengths := []int{5, 1, 4, 3, 2, 6, 6, 1, 2, 3}
	rows := Pack(lengths, 8)
	for _, mode := range []string{None, Sorted, Paced} {
		p, err := NewPacked(Spec{Mode: mode, Seed: 3, GlobalBatch: 2, MicroBatch: 1, Epochs: 2}, make([]float64, len(lengths)), rows)
		if err != nil || p.StepsPerEpoch() != (len(rows)+1)/2 || p.Steps() != 2*p.StepsPerEpoch() {
			t.Fatalf("%v, %v", p, err)
		}
		for e := range 2 {
			var seen []int
			for s := range p.StepsPerEpoch() {
				for _, micro := range p.Batch(e*p.StepsPerEpoch() + s) {
					if !slices.ContainsFunc(rows, func(r []int) bool { return slices.Equal(r, micro) }) {
						t.Errorf("%s: micro-batch %v is no row of %v", mode, micro, rows)
					}
					seen = append(seen, micro...)
				}
			}
			if slices.Sort(seen); !slices.Equal(seen, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
				t.Errorf("%s: epoch %d has %v", mode, e, seen)
			}
		}
	}
	if _, err := NewPacked(Spec{GlobalBatch: 1, MicroBatch: 1, Epochs: 1}, []float64{1}, [][]int{{1}}); err == nil {
		t.Error("a row of an example that is not there")
	}
}

// The difficulty of a row is the mean of its examples'.
func TestPackedPlanSortsByMean(t *testing.T) {
	p, err := NewPacked(Spec{Mode: Sorted, GlobalBatch: 1, MicroBatch: 1, Epochs: 1}, []float64{9, 0, 1, 2}, [][]int{{0, 1}, {2, 3}})
	if err != nil || !reflect.DeepEqual([][][]int{p.Batch(0), p.Batch(1)}, [][][]int{{{2, 3}}, {{0, 1}}}) {
		t.Errorf("%v, %v, %v", p.Batch(0), p.Batch(1), err)
	}
}
