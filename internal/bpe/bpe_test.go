package bpe

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"lorad/internal/world"
)

// hfRecord is what Hugging Face's trainer made of the same text (scripts/oracle/bpe_trainer.py).
type hfRecord struct {
	DocsSHA256 string     `json:"docs_sha256"`
	VocabSize  int        `json:"vocab_size"`
	Merges     []string   `json:"merges"`
	Alphabet   []string   `json:"alphabet"`
	Samples    []string   `json:"samples"`
	Splits     [][]string `json:"splits"`
}

func readHF(t *testing.T) hfRecord {
	t.Helper()
	data, err := os.ReadFile("testdata/hf.json")
	if err != nil {
		t.Fatal(err)
	}
	var r hfRecord
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTrainAgreesWithHuggingFace(t *testing.T) {
	hf := readHF(t)
	h := sha256.New()
	for doc := range world.General(2, 400) {
		_, _ = io.WriteString(h, doc+"\n")
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != hf.DocsSHA256 {
		t.Fatalf("the general text has changed: record testdata/hf.json again with scripts/oracle/bpe_trainer.py")
	}
	tok := Train(world.General(2, 400), hf.VocabSize)
	if !slices.Equal(tok.Vocab[3:259], hf.Alphabet) {
		t.Error("the alphabet differs")
	}
	if len(tok.Merges) != len(hf.Merges) {
		t.Errorf("%d merges, want %d", len(tok.Merges), len(hf.Merges))
	}
	for i := range min(len(tok.Merges), len(hf.Merges)) {
		if got := tok.Merges[i][0] + " " + tok.Merges[i][1]; got != hf.Merges[i] {
			t.Fatalf("merge %d is %q, want %q", i, got, hf.Merges[i])
		}
	}
}

func TestSplitAgreesWithHuggingFace(t *testing.T) {
	hf := readHF(t)
	for i, sample := range hf.Samples {
		var got []string
		for word := range Split(sample) {
			got = append(got, Runes(word))
		}
		if !slices.Equal(got, hf.Splits[i]) {
			t.Errorf("Split(%q) = %q, want %q", sample, got, hf.Splits[i])
		}
	}
}

func TestTrainIgnoresTheOrderOfDocuments(t *testing.T) {
	docs := slices.Collect(world.General(4, 200))
	forward := Train(slices.Values(docs), 600)
	slices.Reverse(docs)
	backward := Train(slices.Values(docs), 600)
	if !slices.Equal(forward.Vocab, backward.Vocab) {
		t.Error("the vocabulary depends on the order of the documents")
	}
}

// A text with few pairs ends early, and a repeated symbol merges from the left.
func TestTrainSmall(t *testing.T) {
	tok := Train(slices.Values([]string{"aaaa aaaa ba"}), 300)
	var got []string
	for _, m := range tok.Merges {
		got = append(got, m[0]+"+"+m[1])
	}
	want := []string{"a+a", "aa+aa", "b+a", "Ġ+aaaa", "Ġ+ba"} // ties go to the smaller ids: b before the space
	if !slices.Equal(got, want) {
		t.Errorf("merges %q, want %q", got, want)
	}
}

func TestBytesHaveDistinctPrintableStandIns(t *testing.T) {
	seen := map[rune]bool{}
	for b := range 256 {
		r := ByteRune(byte(b))
		if seen[r] || r <= ' ' || r > 323 {
			t.Errorf("byte %#x stands as %q", b, r)
		}
		seen[r] = true
	}
}

func TestFilesAreJSONInIDOrder(t *testing.T) {
	tok := Train(world.General(4, 100), 500)
	files, err := tok.Files()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if !json.Valid(data) {
			t.Errorf("%s is not JSON", name)
		}
	}
	text := string(files["tokenizer.json"])
	at := strings.Index(text, `"vocab"`)
	for _, token := range tok.Vocab {
		key, err := plain(token)
		if err != nil {
			t.Fatal(err)
		}
		next := strings.Index(text[at:], "\n      "+string(key)+":")
		if next < 0 {
			t.Fatalf("%q is missing, or out of order", token)
		}
		at += next
	}
}
