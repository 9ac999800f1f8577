package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// bpe is a byte-pair encoding model: a vocabulary and ranked merges.
type bpe struct {
	vocab        map[string]int32
	chars        map[rune]int32   // the entries of vocab that are one character
	merges       map[uint64]merge // by the pair of ids
	bytes        [256]int32       // ids of <0x00> .. <0xFF>, -1 where the vocabulary has none
	visible      [256]int32       // ids of the bytes' stand-ins, -1 likewise
	byteLevel    bool             // words are bytes, each written as its stand-in
	cutSpaces    bool             // no merge reaches over the beginning of a run of ▁: words are cut there
	byteFallback bool
	ignoreMerges bool // a word that is in the vocabulary is not taken apart
	fuseUnk      bool
	unk          int32 // -1: characters that are not in the vocabulary disappear
}

// merge is what a pair becomes, and when: lower ranks first.
type merge struct {
	rank, id int32
}

func pair(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

// index derives chars and bytes from vocab.
func (m *bpe) index() {
	m.chars = map[rune]int32{}
	for s, id := range m.vocab {
		if r, n := utf8.DecodeRuneInString(s); n == len(s) && n > 0 {
			m.chars[r] = id
		}
	}
	for b := range m.bytes {
		id, ok := m.vocab[fmt.Sprintf("<0x%02X>", b)]
		if !ok {
			id = -1
		}
		m.bytes[b] = id
		if id, ok = m.chars[byteToVisible[b]]; !ok {
			id = -1
		}
		m.visible[b] = id
	}
}

// metaspaceRune is SentencePiece's space.
const metaspaceRune = "▁"

// reachesOver reports whether a token has a ▁ after anything else.
func reachesOver(token string) bool {
	return beforeSpaces(token) < len(token)
}

// encoder appends the ids of one word after another, and keeps its buffers in between.
type encoder struct {
	*bpe
	words   words
	ids     []int32
	symbols []symbol
	queue   queue
}

func newEncoder(m *bpe) *encoder { return &encoder{bpe: m, words: newWords()} }

// part encodes what the pre-tokenizer made.
func (e *encoder) part(text string) {
	if !e.cutSpaces {
		e.word(text)
		return
	}
	for len(text) > 0 {
		n := beforeSpaces(text)
		e.word(text[:n])
		text = text[n:]
	}
}

// beforeSpaces is the length of text up to the first ▁ after something else.
func beforeSpaces(text string) int {
	at := 0
	for strings.HasPrefix(text[at:], metaspaceRune) {
		at += len(metaspaceRune)
	}
	if n := strings.Index(text[at:], metaspaceRune); n >= 0 {
		return at + n
	}
	return len(text)
}

// symbol is a token of the word being merged; the live ones form a doubly linked list by index. id is -1 once merged away.
type symbol struct {
	id, prev, next int32
}

func (e *encoder) word(w string) {
	place := e.words.at(w)
	if place.holds(w) {
		e.ids = append(e.ids, place.ids[:place.count]...)
		return
	}
	from := len(e.ids)
	e.mergeWord(w)
	place.keep(w, e.ids[from:])
}

// mergeWord appends the ids of a word that is not remembered.
func (e *encoder) mergeWord(w string) {
	if e.ignoreMerges {
		spelt := w
		if e.byteLevel {
			spelt = toVisible(w)
		}
		if id, ok := e.vocab[spelt]; ok {
			e.ids = append(e.ids, id)
			return
		}
	}
	e.symbols = e.symbols[:0]
	if !e.byteLevel {
		e.start(w)
	} else if !e.startBytes(w) {
		e.start(toVisible(w))
	}
	if n := len(e.symbols); n > 0 {
		e.symbols[n-1].next = -1
	}
	e.mergeAll()
	for i := int32(0); i >= 0 && int(i) < len(e.symbols); i = e.symbols[i].next {
		e.ids = append(e.ids, e.symbols[i].id)
	}
}

// startBytes makes each byte a symbol, or reports that the vocabulary lacks one.
func (e *encoder) startBytes(w string) bool {
	for i := range len(w) {
		id := e.visible[w[i]]
		if id < 0 {
			e.symbols = e.symbols[:0]
			return false
		}
		e.push(id)
	}
	return true
}

// start splits a word into characters, each a symbol. A character that is not in the vocabulary becomes its UTF-8 bytes, or else
// the unknown token. An unknown token is held back until the next known character, so bytes overtake it: that is what the
// reference library does, and ids must be the same.
func (e *encoder) start(w string) {
	held := false
	for i, r := range w {
		if id, ok := e.chars[r]; ok {
			if held {
				e.push(e.unk)
				held = false
			}
			e.push(id)
			continue
		}
		if e.byteFallback && e.pushBytes(w[i:i+utf8.RuneLen(r)]) {
			continue
		}
		if e.unk < 0 {
			continue
		}
		if held && !e.fuseUnk {
			e.push(e.unk)
		}
		held = true
	}
	if held {
		e.push(e.unk)
	}
}

func (e *encoder) push(id int32) {
	i := int32(len(e.symbols))
	e.symbols = append(e.symbols, symbol{id, i - 1, i + 1})
}

// pushBytes adds a token per byte, or nothing when one of them is not in the vocabulary.
func (e *encoder) pushBytes(s string) bool {
	for i := range len(s) {
		if e.bytes[s[i]] < 0 {
			return false
		}
	}
	for i := range len(s) {
		e.push(e.bytes[s[i]])
	}
	return true
}

// mergeAll merges pairs by rank, then from left to right. The queue makes it O(n log n): entries whose pair is gone by the time they
// come up are skipped.
func (e *encoder) mergeAll() {
	e.queue = e.queue[:0]
	for i := range len(e.symbols) - 1 {
		e.offer(int32(i))
	}
	for len(e.queue) > 0 {
		top := e.queue.pop()
		left := &e.symbols[top.pos]
		if left.id < 0 || left.next < 0 {
			continue
		}
		right := &e.symbols[left.next]
		if m, ok := e.merges[pair(left.id, right.id)]; !ok || m.id != top.id {
			continue
		}
		left.id, left.next, right.id = top.id, right.next, -1
		if left.next >= 0 {
			e.symbols[left.next].prev = top.pos
			e.offer(top.pos)
		}
		if left.prev >= 0 {
			e.offer(left.prev)
		}
	}
}

// offer queues the merge of the symbol at pos with the one after it, if there is such a merge.
func (e *encoder) offer(pos int32) {
	left := e.symbols[pos]
	if m, ok := e.merges[pair(left.id, e.symbols[left.next].id)]; ok {
		e.queue.push(candidate{m.rank, pos, m.id})
	}
}

// candidate is a merge that was possible when it was queued.
type candidate struct {
	rank, pos, id int32
}

func (a candidate) before(b candidate) bool {
	return a.rank < b.rank || a.rank == b.rank && a.pos < b.pos
}

// queue is a binary heap; container/heap would box every element.
type queue []candidate

func (q *queue) push(c candidate) {
	h := append(*q, c)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !c.before(h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = c
	*q = h
}

func (q *queue) pop() candidate {
	h := *q
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	i := 0
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(h[down]) {
			down++
		}
		if !h[down].before(last) {
			break
		}
		h[i] = h[down]
		i = down
	}
	if len(h) > 0 {
		h[i] = last
	}
	*q = h
	return top
}
