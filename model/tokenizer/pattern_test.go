package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// Each hand-written split and the expression that it stands for cut every oracle string alike.
func TestScannersAreTheirExpressions(t *testing.T) {
	texts := oracleStrings(t)
	const lead, tail = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|`, `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	for _, expr := range []string{
		`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
		lead + `\p{N}{1,3}` + tail,
		lead + `\p{N}` + tail,
	} {
		p, err := compile(expr)
		if err != nil {
			t.Fatal(err)
		}
		split := scan(knownScanner(expr))
		for _, s := range texts {
			var got, want []string
			split(s, true, func(part string) { got = append(got, part) })
			for _, m := range p(s) {
				want = append(want, s[m.start:m.end])
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %q: %q, want %q", expr, s, got, want)
			}
		}
	}
}

// oracleStrings are those of testdata, and all pairs of what is awkward to split.
func oracleStrings(t *testing.T) []string {
	f, err := os.Open("testdata/strings.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	if err := json.NewDecoder(z).Decode(&texts); err != nil || len(texts) < 2000 {
		t.Fatalf("%d texts, %v", len(texts), err)
	}
	awkward := []string{" ", "  ", "\n", "\r\n", "\t", "'", "'s", "'LL", "'Re", "'\u017f", "a", "Z", "1", "12345", "\u0663", "\u2177", "!", "?!", "\u00a0", "\u3000", "\u0301", "\u200d", "👍"}
	for _, a := range awkward {
		for _, b := range awkward {
			for _, c := range awkward {
				texts = append(texts, a+b+c)
			}
		}
	}
	return texts
}
