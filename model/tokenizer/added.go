package tokenizer

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is one entry of added_tokens.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// addedTokens finds added tokens in text before the model sees it: raw looks at the text as given, normalized at what the
// normalizer made of the stretches in between.
type addedTokens struct {
	ids             map[string]int32
	next            int32            // one more than the largest of ids
	pieces          map[int32]string // what Decode starts from: the content, normalized where matching is
	special         map[string]bool
	raw, normalized matcher
}

// add registers a token. Like the reference library, ids follow from the vocabulary and the order of the list; a file that says
// otherwise would be read differently by different programs and is refused.
func (a *addedTokens) add(tok addedToken, vocab map[string]int32, norm normalizer) error {
	want, known := vocab[tok.Content]
	if !known {
		want = max(int32(len(vocab)), a.next)
	}
	if tok.Content == "" {
		return fmt.Errorf("added token %d has no content", tok.ID)
	}
	if _, dup := a.ids[tok.Content]; dup {
		return fmt.Errorf("added token %q is given twice", tok.Content)
	}
	if want != tok.ID {
		return fmt.Errorf("added token %q has id %d, but the vocabulary and the tokens before it make it %d", tok.Content, tok.ID, want)
	}
	a.ids[tok.Content] = tok.ID
	a.next = max(a.next, tok.ID+1)
	if tok.Special {
		a.special[tok.Content] = true
	}
	if !tok.Normalized {
		a.raw.insert(tok.Content, tok)
		a.pieces[tok.ID] = tok.Content
		return nil
	}
	content := tok.Content
	if norm != nil {
		content = norm(content)
	}
	if content != "" {
		a.normalized.insert(content, tok)
	}
	a.pieces[tok.ID] = content
	return nil
}

// span is a stretch of text; id is the added token it is, or -1.
type span struct {
	start, end int
	id         int32
}

// matcher finds a set of strings: leftmost first, the longest where several begin at one place.
type matcher struct {
	root   node
	begins [256]bool // bytes that a token begins with
	any    bool
}

// node is a place in a trie; kids[i] is reached by the byte keys[i].
type node struct {
	keys []byte
	kids []*node
	tok  *addedToken
}

func (n *node) child(key byte) *node {
	if i := bytes.IndexByte(n.keys, key); i >= 0 {
		return n.kids[i]
	}
	return nil
}

func (m *matcher) insert(content string, tok addedToken) {
	n := &m.root
	for i := range len(content) {
		child := n.child(content[i])
		if child == nil {
			child = &node{}
			n.keys, n.kids = append(n.keys, content[i]), append(n.kids, child)
		}
		n = child
	}
	if n.tok == nil { // the first one wins, as in the reference library
		n.tok = &tok
	}
	m.begins[content[0]] = true
	m.any = true
}

// longest returns the longest token that begins at text[at], and its length in bytes.
func (m *matcher) longest(text string, at int) (tok *addedToken, length int) {
	n := &m.root
	for i := at; i < len(text); i++ {
		if n = n.child(text[i]); n == nil {
			break
		}
		if n.tok != nil {
			tok, length = n.tok, i+1-at
		}
	}
	return tok, length
}

// split cuts text into added tokens and the stretches between them.
func (m *matcher) split(text string) []span {
	if text == "" {
		return nil
	}
	var out []span
	done := 0 // text before it is in out
	for at := 0; m.any && at < len(text); {
		if !m.begins[text[at]] {
			at++
			continue
		}
		tok, n := m.longest(text, at)
		if tok == nil {
			at++
			continue
		}
		start, end := at, at+n
		at = end
		if tok.SingleWord && !isolated(text, start, end) {
			continue
		}
		if tok.LStrip {
			start = max(len(strings.TrimRightFunc(text[:start], unicode.IsSpace)), done)
		}
		if tok.RStrip {
			end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
		}
		if done < start {
			out = append(out, span{done, start, -1})
		}
		out = append(out, span{start, end, tok.ID})
		done = end
	}
	if done != len(text) {
		out = append(out, span{done, len(text), -1})
	}
	return out
}

// isolated reports whether no word character touches text[start:end].
func isolated(text string, start, end int) bool {
	before, n := utf8.DecodeLastRuneInString(text[:start])
	if n > 0 && isWord(before) {
		return false
	}
	after, n := utf8.DecodeRuneInString(text[end:])
	return n == 0 || !isWord(after)
}

// isWord is \w of Unicode's regular expression annex: alphabetic, marks, decimal digits, connectors and joiners.
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}
