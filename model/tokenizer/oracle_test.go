package tokenizer_test

import (
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"strings"
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

var families = []string{"gpt2", "gpt2_prefix", "llama3", "qwen2", "llama2", "metaspace", "metaspace_always", "deepseek",
	"smollm2", "qwen3", "mistral", "phi3", "gemma"}

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
func TestOracleTokenizersLibrary(t *testing.T) {
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

// draw makes the strings of many.json.gz, as the class Draw of the script does.
type draw struct {
	state  uint64
	Parts  []string
	Planes [][2]int
}

func (d *draw) below(n int) int {
	d.state = d.state*6364136223846793005 + 1442695040888963407
	return int((d.state >> 33) % uint64(n))
}

func (d *draw) string() string {
	var s strings.Builder
	for range 1 + d.below(16) {
		if d.below(5) == 0 {
			plane := d.Planes[d.below(len(d.Planes))]
			s.WriteRune(rune(plane[0] + d.below(plane[1]-plane[0]+1)))
			continue
		}
		s.WriteString(d.Parts[d.below(len(d.Parts))])
	}
	return s.String()
}

// TestOracleTenThousandStrings holds ids and decodings of 10,240 drawn strings per family to the tokenizers library, by their hashes.
func TestOracleTenThousandStrings(t *testing.T) {
	var many struct {
		draw
		Count   int
		PerHash int `json:"per_hash"`
		Hashes  map[string][]byte
	}
	readGzip(t, "many", &many)
	many.state = 20261123
	drawn := make([]string, many.Count)
	for i := range drawn {
		drawn[i] = many.string()
	}
	if many.Count < 10000 || len(many.Hashes) != len(families) {
		t.Fatalf("%d strings, %d families", many.Count, len(many.Hashes))
	}
	for _, name := range families {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok, _ := load(t, name)
			for i := 0; i < many.Count; i += many.PerHash {
				h := fnv.New32a()
				for _, s := range drawn[i : i+many.PerHash] {
					ids := tok.Encode(s, true)
					binary.Write(h, binary.LittleEndian, ids)
					io.WriteString(h, tok.Decode(ids, false))
				}
				if got := h.Sum32(); got != binary.LittleEndian.Uint32(many.Hashes[name][i/many.PerHash*4:]) {
					t.Fatalf("one of %q differs from the library", drawn[i:i+many.PerHash])
				}
			}
		})
	}
}
