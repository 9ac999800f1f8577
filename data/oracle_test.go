package data

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

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

// TestOracleChatTemplates: the models' own templates, as transformers renders them (scripts/oracle/chat_templates.py), and what
// their {% generation %} blocks cover.
func TestOracleChatTemplates(t *testing.T) {
	var o struct {
		Conversations map[string][]struct{ Role, Content string }
		Templates     map[string]struct {
			Source   string
			Rendered map[string]struct {
				Text  *string
				Spans [][2]int // in characters
			}
		}
	}
	if err := json.Unmarshal(read(t, "testdata/chat_templates.json"), &o); err != nil {
		t.Fatal(err)
	}
	for name, want := range o.Templates {
		template, err := NewTemplate(want.Source, "<s>", "</s>", DefaultDate)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for row, w := range want.Rendered {
			conversation, heading := strings.CutSuffix(row, "+")
			var messages []Message
			for _, m := range o.Conversations[conversation] {
				messages = append(messages, Message{Role: m.Role, Content: m.Content})
			}
			text, spans, err := template.render(messages, heading)
			switch {
			case w.Text == nil && err == nil:
				t.Errorf("%s, %s: rendered, but transformers refuses it", name, row)
			case w.Text != nil && (err != nil || text != *w.Text):
				t.Errorf("%s, %s: %v\n got %q\nwant %q", name, row, err, text, *w.Text)
			case w.Text != nil && !slices.Equal(inCharacters(text, spans), w.Spans):
				t.Errorf("%s, %s: generation blocks at %v, want %v", name, row, inCharacters(text, spans), w.Spans)
			}
		}
	}
}

func inCharacters(text string, spans [][2]int) (out [][2]int) {
	for _, s := range spans {
		out = append(out, [2]int{utf8.RuneCountInString(text[:s[0]]), utf8.RuneCountInString(text[:s[1]])})
	}
	return out
}

// TestMarkedAnswersAreLearnt: a template that rewrites earlier turns and marks them is learnt in every turn.
func TestMarkedAnswersAreLearnt(t *testing.T) {
	const template = `{% for m in messages %}{{ "<" + m.role[0] + ">" }}{% if m.role == "assistant" %}{% generation %}{{ m.content if loop.last else m.content | upper }}.{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}`
	enc, err := NewEncoder(byteTokenizer{}, template, DefaultDate)
	if err != nil {
		t.Fatal(err)
	}
	p, err := enc.conversation([]Message{{Role: "user", Content: "q"}, {Role: "assistant", Content: "one"}, {Role: "user", Content: "r"}, {Role: "assistant", Content: "two"}})
	if err != nil {
		t.Fatal(err)
	}
	var learnt []string
	for _, r := range p.learn {
		learnt = append(learnt, p.text[r[0]:r[1]])
	}
	if got := strings.Join(learnt, "|"); got != "ONE.|two." || p.close || p.warning != "" || p.completion != "two" || p.prompt != "<u>q<a>ONE.<u>r<a>" {
		t.Errorf("learnt %q of %+v", got, p)
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
