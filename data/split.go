package data

import (
	"bytes"
	"crypto/sha256"
	"math"
	"slices"
)

// split moves examples from the training to the validation side. See the package documentation for the rule.
func (b *builder) split() {
	want := b.wanted(len(b.set.Train))
	if want == 0 {
		return
	}
	keys := make([][32]byte, len(b.set.Train))
	for i, ex := range b.set.Train {
		keys[i] = contentKey(b.opt.Seed, ex)
	}
	limit := threshold(keys, want)
	var train []Example
	for i, ex := range b.set.Train {
		if bytes.Compare(keys[i][:], limit[:]) < 0 {
			b.set.Val = append(b.set.Val, ex)
		} else {
			train = append(train, ex)
		}
	}
	b.set.Train = train
}

// wanted is the number of validation examples: a fraction is rounded up, as in scikit-learn and datasets.
func (b *builder) wanted(n int) int {
	size := b.opt.ValSetSize
	if size < 1 {
		return int(math.Ceil(float64(float64(n)*size) - 1e-9))
	}
	return min(n, int(size))
}

// threshold is the smallest key that stays in training when the want smallest go, moved down to a border between
// different keys so that equal examples stay together.
func threshold(keys [][32]byte, want int) [32]byte {
	sorted := slices.Clone(keys)
	slices.SortFunc(sorted, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	if want >= len(sorted) {
		return [32]byte(bytes.Repeat([]byte{0xff}, 32))
	}
	return sorted[want]
}

// contentKey places an example in the order that decides the split.
func contentKey(seed uint64, ex Example) [32]byte {
	h := sha256.New()
	h.Write([]byte("lorad-split/1\n"))
	writeU64(h, seed)
	writeTokens(h, ex)
	return [32]byte(h.Sum(nil))
}

// twins counts the validation examples that the training side has too.
func twins(train, val []Example) int {
	if len(val) == 0 {
		return 0
	}
	seen := make(map[[32]byte]bool, len(train))
	for _, ex := range train {
		seen[contentKey(0, ex)] = true
	}
	n := 0
	for _, ex := range val {
		if seen[contentKey(0, ex)] {
			n++
		}
	}
	return n
}
