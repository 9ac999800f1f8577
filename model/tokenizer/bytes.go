package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// GPT-2 writes bytes as visible characters: those of Latin-1 that are visible stand for themselves, the other 68 for U+0100 upward
// in order. So a space is Ġ and a newline Ċ.

// visibleByte reports whether a byte stands for itself.
func visibleByte(b int) bool {
	return b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae && b <= 0xff
}

// byteToVisible and visibleToByte are the two directions of the table.
var byteToVisible, visibleToByte = func() (to [256]rune, from [256 + 68]int16) {
	for i := range from {
		from[i] = -1
	}
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !visibleByte(b) {
			r = next
			next++
		}
		to[b], from[r] = r, int16(b)
	}
	return to, from
}()

func toVisible(s string) string {
	var b strings.Builder
	b.Grow(len(s) + len(s)/4)
	for i := range len(s) {
		b.WriteRune(byteToVisible[s[i]])
	}
	return b.String()
}

// fromVisible appends the bytes a token stands for, or the token itself when it holds any other character.
func fromVisible(dst []byte, token string) []byte {
	start := len(dst)
	for _, r := range token {
		if int(r) >= len(visibleToByte) || visibleToByte[r] < 0 {
			return append(dst[:start], token...)
		}
		dst = append(dst, byte(visibleToByte[r]))
	}
	return dst
}

// lossy reads UTF-8, with one U+FFFD for each longest broken beginning of a character (Unicode's and Rust's practice; Go's
// conversion has one per byte).
func lossy(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r != utf8.RuneError || n > 1 {
			out.Write(b[:n])
		} else {
			n = brokenPrefix(b)
			out.WriteString("\uFFFD")
		}
		b = b[n:]
	}
	return out.String()
}

// brokenPrefix is the length of the longest beginning of b that also begins some character; at least 1.
func brokenPrefix(b []byte) int {
	want, low, high := 0, byte(0x80), byte(0xbf)
	switch c := b[0]; {
	case c >= 0xc2 && c <= 0xdf:
		want = 1
	case c >= 0xe0 && c <= 0xef:
		want = 2
		if c == 0xe0 {
			low = 0xa0
		} else if c == 0xed {
			high = 0x9f
		}
	case c >= 0xf0 && c <= 0xf4:
		want = 3
		if c == 0xf0 {
			low = 0x90
		} else if c == 0xf4 {
			high = 0x8f
		}
	}
	n := 1
	for n <= want && n < len(b) && b[n] >= low && b[n] <= high {
		n++
		low, high = 0x80, 0xbf
	}
	return n
}
