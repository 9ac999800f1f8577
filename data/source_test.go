package data

import (
	"testing"
	"unicode/utf8"
)

func TestClipCutsBetweenCharacters(t *testing.T) {
	for in, want := range map[string]string{"short": "short", "exactly 10": "exactly 10", "nine byteséé": "nine bytes...", "eight by\u00e9\u00e9": "eight by\u00e9...", "seven b\u00e9\u00e9x": "seven b\u00e9..."} {
		if got := clip([]byte(in), 10); got != want || !utf8.ValidString(got) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
