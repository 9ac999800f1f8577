package data

import (
	"bytes"
	"cmp"
	"math"
	"slices"
)

// Mixing changes how often the data sets of a job come up, not which examples they have: an epoch keeps its length, and data set i gets its
// share p_i of it. Weights give the shares themselves; a temperature T makes them proportional to size^(1/T), so 1 changes nothing and a
// large T makes them equal (Raffel et al., "Exploring the limits of transfer learning", 2020, section 3.5.2).
//
// A set that is to come up more often than it has examples is repeated, whole times first; the rest, or the part of a set that has too many,
// is the examples with the smallest hash of (seed, tokens, labels). So mixing is a pure function as well, every example that is in the mix is in
// exactly one step of an epoch as often as it is in the mix, and lorad audit counts as before.
//
// Why not draw with replacement: then nobody can say which examples a run has seen.

// shares divides the examples of an epoch among sets, by largest remainder, ties to the first.
func shares(sizes []int, weights []float64, temperature float64) []int {
	total := 0
	for _, n := range sizes {
		total += n
	}
	out, order := make([]int, len(sizes)), make([]int, len(sizes))
	if total == 0 {
		return out
	}
	p, left := proportions(sizes, weights, temperature, total), total
	for i := range p {
		out[i], order[i] = int(p[i]), i
		left -= out[i]
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(p[b]-math.Floor(p[b]), p[a]-math.Floor(p[a]))
	})
	for _, i := range order[:min(left, len(order))] {
		out[i]++
	}
	return out
}

// proportions are the shares before they are whole numbers. A set without examples has none.
func proportions(sizes []int, weights []float64, temperature float64, total int) []float64 {
	p, sum := powers(sizes, weights, temperature, 1)
	if math.IsInf(float64(total)*sum, 1) { // only what they are beside the largest counts
		unit := float64(slices.Max(sizes))
		if temperature == 0 {
			unit = slices.Max(weights)
		}
		p, sum = powers(sizes, weights, temperature, unit)
	}
	for i := range p {
		p[i] = float64(total) * p[i] / sum
	}
	return p
}

// powers are size^(1/temperature), or the weights, in some unit; and their sum.
func powers(sizes []int, weights []float64, temperature, unit float64) (p []float64, sum float64) {
	p = make([]float64, len(sizes))
	for i, n := range sizes {
		switch {
		case n == 0:
		case temperature > 0:
			p[i] = math.Pow(float64(n)/unit, 1/temperature)
		default:
			p[i] = weights[i] / unit
		}
		sum += p[i]
	}
	return p, sum
}

// repeated is n examples of a set, as described above, in the order of the set.
func repeated(set []Example, n int, seed uint64) []Example {
	if len(set) == 0 {
		return nil
	}
	times, extra := n/len(set), n%len(set)
	keys := make([][32]byte, len(set))
	order := make([]int, len(set))
	for i, ex := range set {
		keys[i], order[i] = contentKey(seed, ex), i
	}
	slices.SortStableFunc(order, func(a, b int) int { return bytes.Compare(keys[a][:], keys[b][:]) })
	more := make([]int, len(set))
	for _, i := range order[:extra] {
		more[i] = 1
	}
	out := make([]Example, 0, n)
	for i, ex := range set {
		for range times + more[i] {
			out = append(out, ex)
		}
	}
	return out
}

// mix replaces the training side by its mixture, if one is asked for.
func (b *builder) mix(files []Source) {
	weights, mixed := make([]float64, len(files)), b.opt.MixTemperature > 0
	for i, s := range files {
		if weights[i] = s.Weight; s.Weight == 0 {
			weights[i] = 1
		} else {
			mixed = true
		}
	}
	if !mixed {
		return
	}
	sets := make([][]Example, len(files))
	for _, ex := range b.set.Train {
		sets[ex.source] = append(sets[ex.source], ex)
	}
	sizes := make([]int, len(files))
	for i := range sets {
		sizes[i] = len(sets[i])
	}
	b.set.Train = nil
	for i, n := range shares(sizes, weights, b.opt.MixTemperature) {
		b.set.Train = append(b.set.Train, repeated(sets[i], n, b.opt.Seed)...)
	}
}
