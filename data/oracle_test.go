package data

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"lorad/model/tokenizer"
)

// oracle holds what scripts/oracle/data_examples.py recorded of transformers, jinja2 and tokenizers.
type oracle struct {
	Records []struct {
		Record         json.RawMessage
		Tokens, Labels []int32
	}
	Chats []struct {
		Name, Template, Rendered, Prompt string
		Messages                         json.RawMessage
		Tokens, Labels                   []int32
	}
	Manifest []string // of all records together
}

func recorded(t *testing.T) (oracle, *tokenizer.Tokenizer) {
	t.Helper()
	var o oracle
	if err := json.Unmarshal(read(t, "testdata/examples.json"), &o); err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(read(t, "testdata/tokenizer.json"), []byte(`{"bos_token": "<s>", "eos_token": "</s>"}`))
	if err != nil {
		t.Fatal(err)
	}
	return o, tok
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func lines(name string, text ...string) Source {
	return Source{Name: name, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(strings.Join(text, "\n"))), nil
	}}
}

func TestRecordsAsHuggingFace(t *testing.T) {
	o, tok := recorded(t)
	for _, want := range o.Records {
		set, err := Build([]Source{lines("x", string(want.Record))}, Options{}, tok, "")
		if err != nil {
			t.Fatalf("%s: %v", want.Record, err)
		}
		same(t, string(want.Record), set.Train[0], want.Tokens, want.Labels)
	}
}

// TestManifestIsItsDocumentation: the hash is computed by the script from the documented bytes.
func TestManifestIsItsDocumentation(t *testing.T) {
	o, tok := recorded(t)
	var files []Source
	for _, r := range o.Records { // a file each: their formats differ
		files = append(files, lines("x", string(r.Record)))
	}
	set, err := Build(files, Options{}, tok, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(set.Hash[:]); got != o.Manifest[0] {
		t.Errorf("manifest %s, recorded %s", got, o.Manifest[0])
	}
}

func TestChatsAsHuggingFace(t *testing.T) {
	o, tok := recorded(t)
	for _, want := range o.Chats {
		enc, err := NewEncoder(tok, want.Template, DefaultDate)
		if err != nil {
			t.Fatal(err)
		}
		var raw []struct{ Role, Content string }
		if err := json.Unmarshal(want.Messages, &raw); err != nil {
			t.Fatal(err)
		}
		var messages []Message
		for _, m := range raw {
			messages = append(messages, Message{Role: m.Role, Content: m.Content})
		}
		for generation, text := range map[bool]string{false: want.Rendered, true: want.Prompt} {
			if got, err := enc.template.Render(messages, generation); err != nil || got != text {
				t.Errorf("%s: %v\n got %q\nwant %q", want.Name, err, got, text)
			}
		}
		set, err := Build([]Source{lines("x", `{"messages": `+string(want.Messages)+`}`)}, Options{}, tok, want.Template)
		if err != nil {
			t.Fatalf("%s: %v", want.Name, err)
		}
		same(t, want.Name, set.Train[0], want.Tokens, want.Labels)
	}
}

func same(t *testing.T, name string, got Example, tokens, labels []int32) {
	t.Helper()
	if !slices.Equal(got.Tokens, tokens) {
		t.Errorf("%s: tokens\n got %v\nwant %v", name, got.Tokens, tokens)
	}
	if !slices.Equal(got.Labels, labels) {
		t.Errorf("%s: labels\n got %v\nwant %v", name, got.Labels, labels)
	}
}
