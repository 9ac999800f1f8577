package tokenizer_test

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"lorad/model/tokenizer"
)

// recorded is what scripts/oracle/tokenizers_fuzz.py wrote about one tokenizer: Strings[i] has IDs[i], and Prefix, IDs[i] and
// Suffix decode to Text[i] with and Plain[i] without special tokens.
type recorded struct {
	Tokenizer      string
	IDs            [][]int32
	Prefix, Suffix []int32
	Text, Plain    []string
	Random         []drawn
}

// drawn is a pair [ids, text].
type drawn struct {
	ids  []int32
	text string
}

func (d *drawn) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &[]any{&d.ids, &d.text}) }

var families = []string{"gpt2", "gpt2_prefix", "llama3", "qwen2", "llama2", "metaspace", "metaspace_always", "deepseek"}

func readGzip(t testing.TB, name string, v any) {
	t.Helper()
	f, err := os.Open("testdata/" + name + ".json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(v); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, name string) (*tokenizer.Tokenizer, recorded) {
	t.Helper()
	var r recorded
	readGzip(t, name, &r)
	tok, err := tokenizer.Load([]byte(r.Tokenizer), nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return tok, r
}

// Every id and every decoding is the reference library's.
func TestAgainstTheTokenizersLibrary(t *testing.T) {
	var strings []string
	readGzip(t, "strings", &strings)
	for _, name := range families {
		t.Run(name, func(t *testing.T) {
			tok, r := load(t, name)
			if len(strings) < 2000 || len(r.IDs) != len(strings) {
				t.Fatalf("%d strings, %d answers", len(strings), len(r.IDs))
			}
			for i, s := range strings {
				if got := tok.Encode(s, false); !slices.Equal(got, r.IDs[i]) {
					t.Errorf("%q: ids %v, want %v", s, got, r.IDs[i])
					continue
				}
				all := slices.Concat(r.Prefix, r.IDs[i], r.Suffix)
				if got := tok.Encode(s, true); !slices.Equal(got, all) {
					t.Errorf("%q: with special tokens %v, want %v", s, got, all)
				}
				if got := tok.Decode(all, false); got != r.Text[i] {
					t.Errorf("%v: text %q, want %q", all, got, r.Text[i])
				}
				if got := tok.Decode(all, true); got != r.Plain[i] {
					t.Errorf("%v: plain text %q, want %q", all, got, r.Plain[i])
				}
			}
			for _, d := range r.Random {
				if got := tok.Decode(d.ids, false); got != d.text {
					t.Errorf("%v: text %q, want %q", d.ids, got, d.text)
				}
			}
		})
	}
}
