package tokenizer

import (
	"hash/maphash"
)

// words remembers the ids of the words met last, by a hash: text repeats itself, and looking a word up is ten times as fast as merging it.
// A word has one place; another one with the same place takes it over, so the memory never grows.
type words struct {
	seed  maphash.Seed
	slots []slot
}

const (
	wordSlots = 1 << 14 // 1 MiB
	wordBytes = 30      // longer words are not kept
	wordIDs   = 8       // nor are those of more tokens
)

// slot is one cache line.
type slot struct {
	length, count uint8
	word          [wordBytes]byte
	ids           [wordIDs]int32
}

func newWords() words { return words{maphash.MakeSeed(), make([]slot, wordSlots)} }

// at is the place of a word; it may hold another.
func (w *words) at(word string) *slot { return &w.slots[maphash.String(w.seed, word)%wordSlots] }

func (s *slot) holds(word string) bool {
	return s.count > 0 && string(s.word[:s.length]) == word
}

// keep stores a word, if it is short enough.
func (s *slot) keep(word string, ids []int32) {
	if len(word) > wordBytes || len(ids) > wordIDs {
		return
	}
	s.length, s.count = uint8(copy(s.word[:], word)), uint8(copy(s.ids[:], ids))
}
