// Package bpe trains the byte-level byte-pair tokenizer of the embedded base model and writes it as the files
// that Hugging Face tokenizers loads.
//
// It is a trainer only; model/tokenizer encodes. The alphabet is GPT-2's (256 printable stand-ins for the bytes), the
// pre-tokenizer is GPT-2's regular expression, and ties are broken as in Hugging Face's BpeTrainer (higher count first,
// then the smaller pair of ids), so the two trainers agree merge for merge; a test holds that against numbers
// recorded from tokenizers. SentencePiece was not chosen because its byte fallback and dummy prefix buy nothing for
// ASCII text. The tokenizer is trained on general text alone: a base that had seen the legal words when its
// vocabulary was made would not be a fair "before", and their pieces have trained embeddings, which whole unseen
// words would not.
package bpe

import (
	"container/heap"
	"iter"
	"sort"
	"strings"
	"unicode/utf8"
)

// VocabSize is the embedded base's vocabulary, with its special tokens.
const VocabSize = 2048

// The special tokens and their ids: they come first in the vocabulary.
const (
	Pad, BOS, EOS       = "<pad>", "<s>", "</s>"
	PadID, BOSID, EOSID = 0, 1, 2
)

// Tokenizer is a trained vocabulary: Vocab[id] is the token, Merges are in order of rank.
type Tokenizer struct {
	Vocab  []string
	Merges [][2]string
}

type pair struct{ left, right int32 }

// trainer holds the words of the text as symbol sequences, and where each pair occurs.
type trainer struct {
	words  [][]int32
	counts []int // counts[w] is how often word w occurs
	pairs  map[pair]int
	where  map[pair][]int // words that held the pair at some time; may be out of date
	queue  pairQueue
	tok    Tokenizer
	ids    map[string]int32
}

// Train merges the most frequent pairs of docs until the vocabulary has vocab tokens, or no pair is left.
// The result is a function of the multiset of pre-tokens alone.
func Train(docs iter.Seq[string], vocab int) Tokenizer {
	t := &trainer{pairs: map[pair]int{}, where: map[pair][]int{}, ids: map[string]int32{}}
	t.alphabet()
	t.load(countWords(docs))
	for len(t.tok.Vocab) < vocab && t.queue.Len() > 0 {
		top := heap.Pop(&t.queue).(candidate)
		if now := t.pairs[top.pair]; now != top.count {
			t.offer(top.pair)
			continue
		}
		t.merge(top.pair)
	}
	return t.tok
}

func (t *trainer) alphabet() {
	for _, s := range []string{Pad, BOS, EOS} {
		t.add(s)
	}
	chars := make([]string, 0, 256)
	for b := range 256 {
		chars = append(chars, string(ByteRune(byte(b))))
	}
	sort.Strings(chars) // UTF-8 order is code point order
	for _, c := range chars {
		t.add(c)
	}
}

func (t *trainer) add(token string) int32 {
	id := int32(len(t.tok.Vocab))
	t.tok.Vocab = append(t.tok.Vocab, token)
	t.ids[token] = id
	return id
}

type wordCount struct {
	word  string
	count int
}

func countWords(docs iter.Seq[string]) []wordCount {
	seen := map[string]int{}
	var out []wordCount
	for doc := range docs {
		for word := range Split(doc) {
			i, ok := seen[word]
			if !ok {
				i = len(out)
				seen[word] = i
				out = append(out, wordCount{word: word})
			}
			out[i].count++
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].word < out[j].word })
	return out
}

func (t *trainer) load(words []wordCount) {
	for w, wc := range words {
		symbols := make([]int32, len(wc.word))
		for i := range len(wc.word) {
			symbols[i] = t.ids[string(ByteRune(wc.word[i]))]
		}
		t.words, t.counts = append(t.words, symbols), append(t.counts, wc.count)
		for i := 1; i < len(symbols); i++ {
			t.count(pair{symbols[i-1], symbols[i]}, wc.count, w)
		}
	}
	// Every pair is offered once, from the words in order; duplicates are harmless but slow.
	offered := map[pair]bool{}
	for _, symbols := range t.words {
		for i := 1; i < len(symbols); i++ {
			if p := (pair{symbols[i-1], symbols[i]}); !offered[p] {
				offered[p] = true
				t.offer(p)
			}
		}
	}
}

// count adds n occurrences of p in word w; n < 0 takes them away.
func (t *trainer) count(p pair, n, w int) {
	t.pairs[p] += n
	if n < 0 {
		return
	}
	if at := t.where[p]; len(at) == 0 || at[len(at)-1] != w {
		t.where[p] = append(at, w)
	}
}

func (t *trainer) offer(p pair) {
	if n := t.pairs[p]; n > 0 {
		heap.Push(&t.queue, candidate{p, n})
	}
}

// merge makes one token of p and rewrites the words that hold it, keeping the pair counts current.
func (t *trainer) merge(p pair) {
	left, right := t.tok.Vocab[p.left], t.tok.Vocab[p.right]
	id := t.add(left + right)
	t.tok.Merges = append(t.tok.Merges, [2]string{left, right})
	var changed []pair
	for _, w := range t.where[p] {
		changed = append(changed, t.rewrite(w, p, id)...)
	}
	delete(t.where, p)
	delete(t.pairs, p)
	for _, c := range changed {
		t.offer(c)
	}
}

// rewrite merges p inside word w and returns the pairs that became more frequent.
func (t *trainer) rewrite(w int, p pair, id int32) []pair {
	old, n := t.words[w], t.counts[w]
	merged := make([]int32, 0, len(old))
	for i := 0; i < len(old); i++ {
		if i+1 < len(old) && old[i] == p.left && old[i+1] == p.right {
			merged = append(merged, id)
			i++
		} else {
			merged = append(merged, old[i])
		}
	}
	if len(merged) == len(old) {
		return nil
	}
	for i := 1; i < len(old); i++ {
		t.count(pair{old[i-1], old[i]}, -n, w)
	}
	var grown []pair
	for i := 1; i < len(merged); i++ {
		q := pair{merged[i-1], merged[i]}
		t.count(q, n, w)
		if merged[i-1] == id || merged[i] == id {
			grown = append(grown, q)
		}
	}
	t.words[w] = merged
	return grown
}

// candidate is a pair with the count it had when it was offered.
type candidate struct {
	pair
	count int
}

// pairQueue is a heap with the most frequent pair on top.
type pairQueue []candidate

func (q pairQueue) Len() int { return len(q) }
func (q pairQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	if a.count != b.count {
		return a.count > b.count
	}
	if a.left != b.left {
		return a.left < b.left
	}
	return a.right < b.right
}
func (q pairQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *pairQueue) Push(x any)   { *q = append(*q, x.(candidate)) }
func (q *pairQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

// ByteRune is GPT-2's printable stand-in for a byte: itself where it is printable Latin-1, else the next free code
// point from 256 on.
func ByteRune(b byte) rune {
	switch {
	case b >= '!' && b <= '~', b >= 0xa1 && b != 0xad:
		return rune(b)
	case b <= ' ':
		return 256 + rune(b)
	case b <= 0xa0:
		return 256 + 33 + rune(b-0x7f)
	default: // 0xad
		return 256 + 33 + 34
	}
}

// Split cuts text as GPT-2's regular expression does:
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func Split(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(text) > 0 {
			n := Cut(text)
			if !yield(text[:n]) {
				return
			}
			text = text[n:]
		}
	}
}

var contractions = []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}

// Cut is the length in bytes of the first piece that Split makes of a text that is not empty.
func Cut(text string) int {
	if text[0] == '\'' {
		for _, c := range contractions {
			if strings.HasPrefix(text, c) {
				return len(c)
			}
		}
	}
	lead := 0
	if text[0] == ' ' && len(text) > 1 {
		lead = 1
	}
	r, _ := utf8.DecodeRuneInString(text[lead:])
	if k := KindOf(r); k != Space {
		return lead + Run(text[lead:], k)
	}
	return Spaces(text)
}

// Spaces is the length in bytes of what \s+(?!\S)|\s+ matches in a text that begins with white space: a run before a word leaves its last
// character to the word, unless it is the only one.
func Spaces(text string) int {
	n := Run(text, Space)
	if n == len(text) {
		return n
	}
	if _, last := utf8.DecodeLastRuneInString(text[:n]); n > last {
		return n - last
	}
	return n
}
