package eval

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Domain says which words name something. The zero value knows no words and goes by capitals alone.
type Domain struct {
	// Names are words that always name something when capitalised, even at the start of a sentence.
	Names map[string]bool
	// Common are words, in lower case, that a sentence may start with without naming anything.
	Common map[string]bool
}

// Invented lists the names in answer that the prompt does not contain, in order, without repeats.
//
// A name of several words is in the prompt if it stands there as a whole, or if it is one word of a name there
// (a surname alone, a given name alone). "Mira Vale" is invented in a case of Mira Holt against Tarn Vale: both words
// stand there, but nobody of that name does.
func (d Domain) Invented(prompt, answer string) []string {
	known := d.spans(prompt)
	var out []string
	for _, name := range d.spans(answer) {
		if !among(known, name) && !slices.Contains(out, strings.Join(name, " ")) {
			out = append(out, strings.Join(name, " "))
		}
	}
	return out
}

// Entities lists the names in text, in order, repeats included.
func (d Domain) Entities(text string) []string {
	var out []string
	for _, s := range d.spans(text) {
		out = append(out, strings.Join(s, " "))
	}
	return out
}

// among says whether name is a run of whole words of one of the known names.
func among(known [][]string, name []string) bool {
	for _, k := range known {
		for i := 0; i+len(name) <= len(k); i++ {
			if slices.Equal(k[i:i+len(name)], name) {
				return true
			}
		}
	}
	return false
}

// spans are the names of text as word lists: runs of capitalised words with nothing but a space between them.
func (d Domain) spans(text string) [][]string {
	var out [][]string
	var open []string
	for _, w := range split(text) {
		starts := capitalised(w.text) && (!w.first || d.Names[w.text] || !d.common(w.text))
		switch {
		case open != nil && w.glued && capitalised(w.text):
			open = append(open, w.text)
			continue
		case open != nil:
			out, open = append(out, open), nil
		}
		if starts {
			open = []string{w.text}
		}
	}
	if open != nil {
		out = append(out, open)
	}
	return out
}

// common says whether a word may start a sentence without naming anything.
func (d Domain) common(w string) bool {
	w = strings.ToLower(w)
	return d.Common[w] || slices.Contains(functionWords, w)
}

// functionWords open sentences in any domain.
var functionWords = strings.Fields("a after all an and any are as at because before both but by can did do does during each for from had has " +
	"have he her here his how i if in is it its may no nobody none not of on one or our she since so some that the their then there " +
	"these they this those to under until was we were what when where which while who whom whose why with yes you your")

func capitalised(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return unicode.IsUpper(r)
}

// word is a run of letters and what stands before it.
type word struct {
	text  string
	first bool // of its sentence, line or quotation
	glued bool // exactly one space after the word before
}

// split cuts text into words. Hyphens and apostrophes between letters belong to a word; a possessive is cut off
// and ends a name.
func split(text string) []word {
	var out []word
	first, glued := true, false
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if !unicode.IsLetter(r) {
			first = first || strings.ContainsRune(".!?:\n\"“", r)
			glued = false
			i += size
			continue
		}
		raw := text[i : i+wordLen(text[i:])]
		base := withoutPossessive(raw)
		out = append(out, word{base, first, glued})
		i += len(raw)
		first, glued = false, base == raw && i < len(text) && text[i] == ' '
		if glued {
			i++
		}
	}
	return out
}

func wordLen(text string) int {
	for i, r := range text {
		if !unicode.IsLetter(r) && r != '\'' && r != '’' && r != '-' {
			return i
		}
	}
	return len(text)
}

func withoutPossessive(w string) string {
	w = strings.TrimRight(w, "'’-")
	for _, s := range []string{"'s", "’s"} {
		w = strings.TrimSuffix(w, s)
	}
	return w
}
