package tokenizer

import (
	"strings"
	"unicode/utf8"

	trained "lorad/internal/bpe"
)

// scanner is a hand-written pattern: the length in bytes of the first piece of a text that is not empty. Its pieces cover the text.
// The expression engine took nine tenths of the time of tokenising.
type scanner func(text string) int

// knownScanner is the scanner that does what an expression says, nil when there is none. Each is held to its expression by a test.
func knownScanner(expr string) scanner {
	const lead, tail = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|`, `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	switch expr {
	case `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`:
		return trained.Cut
	case lead + `\p{N}{1,3}` + tail:
		return func(text string) int { return scanChunk(text, 3) }
	case lead + `\p{N}` + tail:
		return func(text string) int { return scanChunk(text, 1) }
	}
	return nil
}

// scanChunk cuts as Llama 3 and Qwen do: contractions in any case; a word with whatever one character is before it; so many digits; signs
// with a space before and line ends after them; line ends with the spaces before them; spaces.
func scanChunk(text string, digits int) int {
	if n := contraction(text); n > 0 {
		return n
	}
	r, size := utf8.DecodeRuneInString(text)
	kind := trained.KindOf(r)
	switch {
	case kind == trained.Letter:
		return trained.Run(text, trained.Letter)
	case kind == trained.Number:
		return numbers(text, digits)
	case r == '\r' || r == '\n':
		return lineEnds(text)
	}
	if n := trained.Run(text[size:], trained.Letter); n > 0 {
		return size + n
	}
	signs := 0
	if r == ' ' {
		signs = 1
	}
	if n := trained.Run(text[signs:], trained.Other); n > 0 {
		signs += n
		return signs + len(text[signs:]) - len(strings.TrimLeft(text[signs:], "\r\n"))
	}
	return lineEnds(text)
}

// contraction is the length of 's, 't, 're, 've, 'm, 'll or 'd at the beginning of text, in any case. The long s is an s.
func contraction(text string) int {
	if len(text) < 2 || text[0] != '\'' {
		return 0
	}
	switch text[1] | 0x20 {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if len(text) > 2 && text[2]|0x20 == 'e' {
			return 3
		}
	case 'l':
		if len(text) > 2 && text[2]|0x20 == 'l' {
			return 3
		}
	}
	if strings.HasPrefix(text[1:], "\u017f") {
		return 3
	}
	return 0
}

// numbers is the length of at most so many numbers.
func numbers(text string, most int) int {
	at := 0
	for ; most > 0 && at < len(text); most-- {
		r, n := utf8.DecodeRuneInString(text[at:])
		if trained.KindOf(r) != trained.Number {
			break
		}
		at += n
	}
	return at
}

// lineEnds is the length of a run of white space up to its last line end; without one, what Spaces says.
func lineEnds(text string) int {
	run := text[:trained.Run(text, trained.Space)]
	if last := strings.LastIndexAny(run, "\r\n"); last >= 0 {
		return last + 1
	}
	return trained.Spaces(text)
}
