package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// gpt2Split is the expression as the tokenizers library has it.
const gpt2Split = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

// The hand-written split and the expression that it stands for cut every oracle string alike.
func TestGPT2PatternIsItsExpression(t *testing.T) {
	p, err := compile(gpt2Split)
	if err != nil {
		t.Fatal(err)
	}
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
	for _, s := range texts {
		if s == "" {
			continue
		}
		if got, want := gpt2Pattern(s), p(s); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
