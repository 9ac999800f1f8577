package tokenizer_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"lorad/model/tokenizer"
)

// BenchmarkEncode encodes 240 kB of prose, code and spaces, and 240 kB that is one single word; both took minutes in libraries that
// merge in quadratic time.
func BenchmarkEncode(b *testing.B) {
	prose := strings.Repeat("The claimant, Ms Ibarra, says it wasn't so: 12,345.67 paid on 3/4/1999.\n\n    if x == 1:\n\treturn [y]\n", 2400)[:240_000]
	for _, name := range []string{"gpt2", "llama3", "llama2"} {
		tok, _ := load(b, name)
		for kind, text := range map[string]string{"prose": prose, "one word": strings.Repeat("kation", 40_000)} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					tok.Encode(text, true)
				}
			})
		}
	}
}

const base = `{"version": "1.0", "truncation": null, "padding": null, "added_tokens": ADDED, "normalizer": NORM, "pre_tokenizer": PRE,
 "post_processor": POST, "decoder": DEC, "model": {"type": "BPE", MODEL "vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3}, "merges": MERGES}}`

// file fills in the template above; parts are pairs of a name and its JSON.
func file(parts ...string) []byte {
	parts = append(parts, "ADDED", "[]", "NORM", "null", "PRE", "null", "POST", "null", "DEC", "null", "MODEL", "", "MERGES", `["a b"]`)
	return []byte(strings.NewReplacer(parts...).Replace(base))
}

func TestWhatIsNotSupportedIsRefusedByName(t *testing.T) {
	for want, data := range map[string][]byte{
		"WordPiece":                 []byte(strings.Replace(string(file()), "BPE", "WordPiece", 1)),
		"dropout":                   file("MODEL", `"dropout": 0.1,`),
		"continuing_subword_prefix": file("MODEL", `"continuing_subword_prefix": "##",`),
		"end_of_word_suffix":        file("MODEL", `"end_of_word_suffix": "</w>",`),
		`"some_option"`:             file("MODEL", `"some_option": true,`),
		"unk_token":                 file("MODEL", `"unk_token": "?",`),
		"BertNormalizer":            file("NORM", `{"type": "BertNormalizer"}`),
		"Precompiled":               file("NORM", `{"type": "Sequence", "normalizers": [{"type": "Precompiled"}]}`),
		"Whitespace":                file("PRE", `{"type": "Whitespace"}`),
		`behavior "Odd"`:            file("PRE", `{"type": "Split", "pattern": {"String": "x"}, "behavior": "Odd", "invert": false}`),
		`escape \b`:                 file("PRE", `{"type": "Split", "pattern": {"Regex": "\\bx"}, "behavior": "Isolated", "invert": false}`),
		`escape \w`:                 file("PRE", `{"type": "Split", "pattern": {"Regex": "[\\w]"}, "behavior": "Isolated", "invert": false}`),
		"anchor":                    file("PRE", `{"type": "Split", "pattern": {"Regex": "^x"}, "behavior": "Isolated", "invert": false}`),
		"set inside a set":          file("PRE", `{"type": "Split", "pattern": {"Regex": "[a[bc]]"}, "behavior": "Isolated", "invert": false}`),
		"intersection":              file("PRE", `{"type": "Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Isolated", "invert": false}`),
		"the group":                 file("PRE", `{"type": "Split", "pattern": {"Regex": "(?i)x"}, "behavior": "Isolated", "invert": false}`),
		`"ss" ignoring case`:        file("PRE", `{"type": "Split", "pattern": {"Regex": "(?i:ss)"}, "behavior": "Isolated", "invert": false}`),
		"String (not empty)":        file("PRE", `{"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": false}`),
		"prepend_scheme first":      file("PRE", `{"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}`, "NORM", `{"type": "Strip", "strip_left": true, "strip_right": true}`),
		"in the first place only":   file("PRE", `{"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}]}`),
		"WordPiece\" is":            file("DEC", `{"type": "WordPiece"}`),
		"BertProcessing":            file("POST", `{"type": "BertProcessing"}`),
		"merge 0":                   file("MERGES", `["b a"]`),
		"merge 1":                   file("MERGES", `[["a", "b"], ["a"]]`),
		"merge 2":                   file("MERGES", `["a b", "a b", "a  b"]`),
		"has id 9":                  file("ADDED", `[{"id": 9, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}]`),
		"version":                   []byte(strings.Replace(string(file()), "1.0", "2.0", 1)),
	} {
		if _, err := tokenizer.Load(data, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if _, err := tokenizer.Load(file(), nil); err != nil {
		t.Errorf("the template itself: %v", err)
	}
}

func TestSparseIdsAreRefused(t *testing.T) {
	data := strings.Replace(string(file()), `"<s>": 3`, `"<s>": 2000000000`, 1)
	if _, err := tokenizer.Load([]byte(data), nil); err == nil || !strings.Contains(err.Error(), "2000000000") {
		t.Errorf("error %v", err)
	}
}

func TestSpecialTokensOfTheConfiguration(t *testing.T) {
	config := `{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null,
	 "added_tokens_decoder": {"5": {"content": "<pad>", "special": true}, "4": {"content": "</s>", "special": true, "normalized": false}, "3": {"content": "<s>", "special": true}}}`
	tok, err := tokenizer.Load(file(), []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	if tok.BOS() != 3 || tok.EOS() != 4 || tok.Pad() != -1 || tok.VocabSize() != 6 {
		t.Errorf("bos %d, eos %d, pad %d, %d tokens", tok.BOS(), tok.EOS(), tok.Pad(), tok.VocabSize())
	}
	if id, ok := tok.ID("</s>"); !ok || id != 4 || tok.Piece(4) != "</s>" || !tok.IsSpecial(4) || tok.IsSpecial(2) {
		t.Errorf("</s> is %d, %v, %q", id, ok, tok.Piece(4))
	}
	if got := tok.Piece(99) + tok.Piece(-1); got != "" {
		t.Errorf("a token outside the vocabulary is %q", got)
	}
	if _, err := tokenizer.Load(file(), []byte(`{"eos_token": "</s>"}`)); err == nil || !strings.Contains(err.Error(), "eos_token") {
		t.Errorf("an unknown eos_token: %v", err)
	}
}

func TestTextThatIsNotUTF8(t *testing.T) {
	tok, _ := load(t, "gpt2")
	if got := tok.Decode(tok.Encode("a\xff\xfeb", false), false); got != "a\uFFFDb" {
		t.Errorf("got %q", got)
	}
}

// FuzzLossless: a byte-level tokenizer without normalizer gives back every text.
func FuzzLossless(f *testing.F) {
	var strings []string
	readGzip(f, "strings", &strings)
	for _, s := range strings[:200] {
		f.Add(s)
	}
	tok, _ := load(f, "llama3")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		if got := tok.Decode(tok.Encode(s, false), false); got != s {
			t.Errorf("%q came back as %q", s, got)
		}
	})
}

// FuzzLoad: a damaged tokenizer.json is an error or a tokenizer, never a panic.
func FuzzLoad(f *testing.F) {
	f.Add(file())
	f.Add(file("NORM", `{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]}`))
	f.Add(file("PRE", `{"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|[^\\s]"}, "behavior": "MergedWithNext", "invert": true}`, "DEC", `{"type": "ByteLevel"}`))
	f.Add(file("POST", `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}}`))
	f.Add(file("ADDED", `[{"id": 4, "content": "<x>", "single_word": true, "lstrip": true, "rstrip": true, "normalized": true, "special": true}]`))
	f.Fuzz(func(t *testing.T, data []byte) { tryLoad(t, data) })
}

func tryLoad(t testing.TB, data []byte) {
	tok, err := tokenizer.Load(data, nil)
	if err != nil {
		return
	}
	for _, id := range tok.Encode(" ab <x> a\n\n  b<s>é", true) {
		if id < 0 || int(id) >= tok.VocabSize() {
			t.Fatalf("id %d of %d", id, tok.VocabSize())
		}
	}
	tok.Decode([]int32{0, 1, 2, 3}, true)
}

// One tokenizer is used by many goroutines at once: what each remembers is its own.
func TestEncodeFromManyGoroutines(t *testing.T) {
	var texts []string
	readGzip(t, "strings", &texts)
	tok, r := load(t, "llama3")
	var wait sync.WaitGroup
	for from := range 8 {
		wait.Go(func() {
			for i := from; i < len(texts); i += 3 {
				if got := tok.Encode(texts[i], false); !slices.Equal(got, r.IDs[i]) {
					t.Errorf("%q: ids %v, want %v", texts[i], got, r.IDs[i])
				}
			}
		})
	}
	wait.Wait()
}
