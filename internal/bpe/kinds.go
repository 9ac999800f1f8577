package bpe

import (
	"unicode"
	"unicode/utf8"
)

// Kind is what the expressions of byte-level tokenizers tell apart: white space, letters (\p{L}), numbers (\p{N}) and the rest.
type Kind uint8

// The kinds of characters.
const (
	Space Kind = iota
	Letter
	Number
	Other
)

// asciiKinds spares the commonest characters three searches in Unicode's tables.
var asciiKinds = func() (kinds [utf8.RuneSelf]Kind) {
	for r := range kinds {
		kinds[r] = unicodeKind(rune(r))
	}
	return kinds
}()

// KindOf is the kind of a character.
func KindOf(r rune) Kind {
	if r >= 0 && r < utf8.RuneSelf {
		return asciiKinds[r]
	}
	return unicodeKind(r)
}

func unicodeKind(r rune) Kind {
	switch {
	case unicode.IsSpace(r):
		return Space
	case unicode.IsLetter(r):
		return Letter
	case unicode.IsNumber(r):
		return Number
	}
	return Other
}

// Run is the length in bytes of the leading characters of kind k.
func Run(text string, k Kind) int {
	for i := 0; i < len(text); {
		if text[i] < utf8.RuneSelf {
			if asciiKinds[text[i]] != k {
				return i
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if unicodeKind(r) != k {
			return i
		}
		i += n
	}
	return len(text)
}

// Runes is the byte-level spelling of text: one stand-in per byte.
func Runes(text string) string {
	out := make([]byte, 0, len(text)+len(text)/4)
	for i := range len(text) {
		out = utf8.AppendRune(out, ByteRune(text[i]))
	}
	return string(out)
}
