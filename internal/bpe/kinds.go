package bpe

import (
	"unicode"
	"unicode/utf8"
)

type kind int

const (
	space kind = iota
	letter
	digit
	other
)

func kindOf(r rune) kind {
	switch {
	case unicode.IsSpace(r):
		return space
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return digit
	}
	return other
}

// run is the length in bytes of the leading runes of kind k.
func run(text string, k kind) int {
	for i, r := range text {
		if kindOf(r) != k {
			return i
		}
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
