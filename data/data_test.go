package data

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"lorad/engine"
	"lorad/job"
)

var update = flag.Bool("update", false, "rewrite the recorded error texts")

// byteTokenizer has a token for every byte, BOS = 256 in front, EOS = 257, and knows their texts.
type byteTokenizer struct{ noEOS, endsWithEOS bool }

func (b byteTokenizer) Encode(text string, special bool) []int32 {
	var ids []int32
	if special {
		ids = append(ids, b.BOS())
	}
	for len(text) > 0 {
		switch {
		case strings.HasPrefix(text, "<s>"):
			ids, text = append(ids, 256), text[3:]
		case strings.HasPrefix(text, "</s>"):
			ids, text = append(ids, 257), text[4:]
		default:
			ids, text = append(ids, int32(text[0])), text[1:]
		}
	}
	if special && b.endsWithEOS {
		ids = append(ids, 257)
	}
	return ids
}

func (b byteTokenizer) Piece(id int32) string { return map[int32]string{256: "<s>", 257: "</s>"}[id] }
func (b byteTokenizer) BOS() int32            { return 256 }
func (b byteTokenizer) EOS() int32 {
	if b.noEOS {
		return -1
	}
	return 257
}

// show writes an example for people: learnt tokens in brackets.
func show(ex Example) string {
	var s strings.Builder
	piece := func(id int32) string {
		if p := (byteTokenizer{}).Piece(id); p != "" {
			return p
		}
		return string(rune(id))
	}
	open := false
	for i, id := range ex.Tokens {
		learnt := i > 0 && ex.Labels[i-1] != engine.Ignore
		if learnt && ex.Labels[i-1] != id {
			return fmt.Sprintf("label %d at %d, next token %d", ex.Labels[i-1], i-1, id)
		}
		if learnt != open {
			s.WriteString(map[bool]string{true: "[", false: "]"}[learnt])
			open = learnt
		}
		s.WriteString(piece(id))
	}
	if open {
		s.WriteString("]")
	}
	if last := ex.Labels[len(ex.Labels)-1]; last != engine.Ignore {
		fmt.Fprintf(&s, " and a label %d after the end", last)
	}
	return s.String()
}

func build(t interface{ Fatal(...any) }, opt Options, template string, text ...string) Set {
	set, err := Build([]Source{lines("x.jsonl", text...)}, opt, byteTokenizer{}, template)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestWhatIsLearnt(t *testing.T) {
	const bosTemplate = `{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}`
	for _, c := range []struct {
		name, line, template string
		opt                  Options
		want                 string
	}{
		{name: "text", line: `{"text": "abc"}`, want: "<s>[abc</s>]"},
		{name: "EOS is not doubled", line: `{"text": "abc</s>"}`, want: "<s>[abc</s>]"},
		{name: "BOS is not doubled", line: `{"text": "<s>abc"}`, want: "<s>[abc</s>]"},
		{name: "completion", line: `{"prompt": "ab", "completion": "cd"}`, want: "<s>ab[cd</s>]"},
		{name: "inputs too", line: `{"prompt": "ab", "completion": "cd"}`, opt: Options{TrainOnInputs: true}, want: "<s>[abcd</s>]"},
		{name: "empty answer", line: `{"prompt": "ab", "completion": ""}`, want: "<s>ab[</s>]"},
		{name: "alpaca", line: `{"instruction": "I", "output": "O"}`,
			want: "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nI\n\n### Response:\n[O</s>]"},
		{name: "alpaca with input", line: `{"instruction": "I", "input": "N", "output": "O"}`,
			want: "<s>Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\nI\n\n### Input:\nN\n\n### Response:\n[O</s>]"},
		{name: "alpaca with system and null input", line: `{"instruction": "I", "input": null, "output": "O", "system": "S", "history": []}`,
			want: "<s>S\n\n### Instruction:\nI\n\n### Response:\n[O</s>]"},
		{name: "messages", line: `{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}, {"role": "user", "content": "V"}, {"role": "assistant", "content": "B"}]}`,
			want: "<s>### System:\nS\n\n### User:\nU\n\n### Assistant:\n[A</s>]\n\n### User:\nV\n\n### Assistant:\n[B</s>]"},
		{name: "sharegpt", line: `{"system": "S", "conversations": [{"from": "human", "value": "U"}, {"from": "gpt", "value": "A"}]}`,
			want: "<s>### System:\nS\n\n### User:\nU\n\n### Assistant:\n[A</s>]"},
		{name: "after the last answer", line: `{"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}, {"role": "user", "content": "never answered"}]}`,
			want: "<s>### User:\nU\n\n### Assistant:\n[A</s>]"},
		{name: "template with BOS and without an end", template: bosTemplate, line: `{"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]}`,
			want: "<s><user>U<assistant>[A</s>]"},
		{name: "truncated", line: `{"prompt": "ab", "completion": "cd"}`, opt: Options{SequenceLen: 4}, want: "<s>ab[c]"},
		{name: "fits exactly", line: `{"prompt": "ab", "completion": "cd"}`, opt: Options{SequenceLen: 6, Excess: Raise}, want: "<s>ab[cd</s>]"},
		{name: "both shapes", line: `{"prompt": "U", "messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]}`,
			want: "<s>### User:\nU\n\n### Assistant:\n[A</s>]"},
	} {
		set := build(t, c.opt, c.template, c.line)
		if got := show(set.Train[0]); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestRewritingTemplate: a template that treats earlier answers in another way still teaches the last one.
func TestRewritingTemplate(t *testing.T) {
	const drops = `{% for m in messages %}<{{ m.role }}>{% if m.role == 'user' or loop.last %}{{ m.content }}{% endif %};{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}`
	set := build(t, Options{}, drops, `{"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}, {"role": "user", "content": "V"}, {"role": "assistant", "content": "B"}]}`)
	if got, want := show(set.Train[0]), "<s><user>U;<assistant>;<user>V;<assistant>[B;]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(set.Report.Warnings) != 1 || !strings.Contains(set.Report.Warnings[0], "rewrites earlier turns") {
		t.Errorf("warnings %q", set.Report.Warnings)
	}
}

func TestTokenizerOddities(t *testing.T) {
	line := `{"prompt": "ab", "completion": "cd"}`
	for want, tok := range map[string]byteTokenizer{"<s>ab[cd]": {noEOS: true}, "<s>ab[cd</s>]": {endsWithEOS: true}} {
		set, err := Build([]Source{lines("x", line)}, Options{}, tok, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := show(set.Train[0]); got != want {
			t.Errorf("%+v: got %s, want %s", tok, got, want)
		}
	}
}

func TestPromptAndCompletionAreForEvaluation(t *testing.T) {
	set := build(t, Options{}, "", `{"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}], "task": "who"}`)
	ex := set.Train[0]
	if ex.Prompt != "### User:\nU\n\n### Assistant:\n" || ex.Completion != "A" || ex.Task != "who" || ex.ID != "x.jsonl:1" {
		t.Errorf("%+v", ex)
	}
	enc, err := NewEncoder(byteTokenizer{}, "", DefaultDate)
	if err != nil {
		t.Fatal(err)
	}
	prompt := enc.Encode(ex.Prompt)
	if !slices.Equal(prompt, ex.Tokens[:len(prompt)]) {
		t.Error("an evaluated prompt is not the prompt that was trained on")
	}
}

func TestDifficulty(t *testing.T) {
	set := build(t, Options{}, "", `{"prompt": "a b", "completion": "a c"}`)
	if got, want := set.Train[0].Difficulty, 4.0/100+3.0/4; got != want {
		t.Errorf("heuristic %v, want %v", got, want)
	}
	source := lines("x", `{"text": "a", "hard": 2.5, "other": -1e3}`)
	for column, want := range map[string]float64{"": 2.5, "other": -1000} {
		source.Fields.Difficulty = column
		set, err := Build([]Source{source}, Options{Difficulty: "hard"}, byteTokenizer{}, "")
		if err != nil || set.Train[0].Difficulty != want {
			t.Errorf("%q: %+v, %v", column, set.Train, err)
		}
	}
}

func TestColumnsCanBeNamed(t *testing.T) {
	for _, c := range []struct {
		line   string
		fields Fields
		want   string
	}{
		{`{"q": "ab", "a": "cd"}`, Fields{Prompt: "q", Completion: "a"}, "<s>ab[cd</s>]"},
		{`{"body": "ab"}`, Fields{Text: "body"}, "<s>[ab</s>]"},
		{`{"turns": [{"who": "human", "says": "U"}, {"who": "bot", "says": "A"}]}`, Fields{Messages: "turns", Role: "who", Content: "says"},
			"<s>### User:\nU\n\n### Assistant:\n[A</s>]"},
	} {
		s := lines("x", c.line)
		s.Fields = c.fields
		set, err := Build([]Source{s}, Options{}, byteTokenizer{}, "")
		if err != nil || show(set.Train[0]) != c.want {
			t.Errorf("%s: %v, %v", c.line, set.Train, err)
		}
	}
}

func TestReport(t *testing.T) {
	set := build(t, Options{SequenceLen: 6}, "",
		`{"prompt": "ab", "completion": "cd"}`,
		"", "  ",
		`{"prompt": "ab", "completion": "cdef"}`,
		`{"prompt": "abcdefgh", "completion": "i"}`)
	r := set.Report
	if r.Records != 3 || r.Train != 2 || r.Truncated != 2 || r.Unlabelled != 1 || r.Tokens != 12 || r.Labelled != 6 || len(r.Warnings) != 2 {
		t.Errorf("%+v", r)
	}
	if set.Train[1].ID != "x.jsonl:4" {
		t.Errorf("id %s: blank lines are lines", set.Train[1].ID)
	}
	dropped := build(t, Options{SequenceLen: 6, Excess: Drop}, "", `{"text": "ab"}`, `{"text": "abcdefgh"}`)
	if r := dropped.Report; r.TooLong != 1 || r.Train != 1 || r.Truncated != 0 {
		t.Errorf("%+v", r)
	}
}

func texts(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(`{"text": "example %d"}`, i)
	}
	return out
}

// TestManifestCoversWhatDecidesBatches: every change that a step could notice changes the hash, and no other.
func TestManifestCoversWhatDecidesBatches(t *testing.T) {
	base := func() []Example {
		return []Example{{Tokens: []int32{1, 2}, Labels: []int32{2, -100}, Difficulty: 1}, {Tokens: []int32{3}, Labels: []int32{-100}}}
	}
	want := Manifest(base(), nil)
	for name, change := range map[string]func([]Example) ([]Example, []Example){
		"token":      func(x []Example) ([]Example, []Example) { x[0].Tokens[0] = 9; return x, nil },
		"label":      func(x []Example) ([]Example, []Example) { x[0].Labels[0] = -100; return x, nil },
		"difficulty": func(x []Example) ([]Example, []Example) { x[1].Difficulty = 1e-300; return x, nil },
		"order":      func(x []Example) ([]Example, []Example) { x[0], x[1] = x[1], x[0]; return x, nil },
		"side":       func(x []Example) ([]Example, []Example) { return x[:1], x[1:] },
		"border": func(x []Example) ([]Example, []Example) {
			x[0] = Example{Tokens: []int32{1}, Labels: []int32{2}, Difficulty: 1}
			return x, nil
		},
	} {
		if Manifest(change(base())) == want {
			t.Errorf("%s does not reach the manifest", name)
		}
	}
	x := base()
	x[0].ID, x[0].Task, x[0].Prompt = "a", "b", "c"
	if Manifest(x, nil) != want {
		t.Error("names reach the manifest")
	}
}

func TestGather(t *testing.T) {
	set := build(t, Options{}, "", `{"text": "a"}`, `{"text": "bcd"}`, `{"text": "e"}`)
	b := Gather(set.Train, []int{1, 0})
	if !slices.Equal(b.Starts, []int32{0, 5, 8}) || !slices.Equal(b.Tokens[5:], set.Train[0].Tokens) || !slices.Equal(b.Labels[:5], set.Train[1].Labels) {
		t.Errorf("%+v", b)
	}
	if b.Labelled() != set.Train[0].Labelled()+set.Train[1].Labelled() {
		t.Errorf("%d labels", b.Labelled())
	}
}

// TestErrors holds what is said of files that cannot be used. Review changes of testdata/errors.txtar as a diff.
func TestErrors(t *testing.T) {
	const path = "testdata/errors.txtar"
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(archive.Files); i += 2 {
		in, want := archive.Files[i], &archive.Files[i+1]
		var opt Options
		first, rest, _ := strings.Cut(string(in.Data), "\n")
		source := lines(in.Name, rest)
		if err := json.Unmarshal([]byte(first), &struct {
			*Options
			*Source
		}{&opt, &source}); err != nil {
			t.Fatal(err)
		}
		_, err := Build([]Source{source}, opt, byteTokenizer{}, "")
		if err == nil {
			t.Errorf("%s: accepted", in.Name)
			continue
		}
		if got := []byte(err.Error() + "\n"); !bytes.Equal(got, want.Data) {
			if !*update {
				t.Errorf("%s:\n got %swant %s", in.Name, got, want.Data)
			}
			want.Data = got
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnreadableText(t *testing.T) {
	for text, want := range map[string]string{
		"{\"text\": \"\xff\"}":                                 "read data x:1: wrong encoding: the line is not UTF-8",
		"{\"text\": \"a\"}\n" + strings.Repeat(" ", MaxLine+1): "read data x:2: too large: the line has more than 64 MiB; is this a JSONL file?",
	} {
		if _, err := Build([]Source{lines("x", text)}, Options{}, byteTokenizer{}, ""); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	broken := errors.New("disk on fire")
	s := Source{Name: "x", Open: func() (io.ReadCloser, error) { return nil, broken }}
	if _, err := Build([]Source{s}, Options{}, byteTokenizer{}, ""); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestByteOrderMarkAndWindowsLines(t *testing.T) {
	set := build(t, Options{}, "", "\xef\xbb\xbf{\"text\": \"a\"}\r\n{\"text\": \"b\"}\r\n")
	if len(set.Train) != 2 || show(set.Train[1]) != "<s>[b</s>]" {
		t.Errorf("%+v", set.Train)
	}
}

func TestJobsWordsArrive(t *testing.T) {
	j, err := job.Parse([]byte(`
base_model: b
datasets: [{path: a.jsonl, type: alpaca, field_instruction: q, field_difficulty: hard}]
test_datasets: [{path: t.jsonl, field: body}]
difficulty: column:level
sequence_len: 77
excess_length_strategy: drop
train_on_inputs: true
seed: 5
`))
	if err != nil {
		t.Fatal(err)
	}
	opened := ""
	sources := SourcesOf(j, func(path string) (io.ReadCloser, error) { opened = path; return nil, nil })
	sources[1].Open()
	if opened != "t.jsonl" || sources[0].Format != Alpaca || sources[0].Fields.Instruction != "q" || sources[0].Fields.Difficulty != "hard" ||
		sources[0].HeldOut || !sources[1].HeldOut || sources[1].Fields.Text != "body" {
		t.Errorf("%q %+v", opened, sources)
	}
	want := Options{SequenceLen: 77, Excess: Drop, TrainOnInputs: true, Seed: 5, Difficulty: "level"}
	if got := OptionsOf(j); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	j.Difficulty = job.DifficultyHeuristic
	if got := OptionsOf(j).Difficulty; got != "" {
		t.Errorf("heuristic became column %q", got)
	}
}

// FuzzBuild: whatever the bytes of a file, there is an error or a set whose labels are the next tokens.
func FuzzBuild(f *testing.F) {
	for _, s := range []string{`{"text": "a"}`, `{"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": ""}]}`,
		`{"conversations": [{}]}`, `{"instruction": "", "output": "x", "input": 3}`, "[]", "{}\n{}", `{"prompt":"<s>","completion":"</s>"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { tryBuild(t, text) })
}

func tryBuild(t testing.TB, text string) {
	set, err := Build([]Source{lines("x", text)}, Options{SequenceLen: 40, ValSetSize: 0.3}, byteTokenizer{}, "")
	if err != nil {
		return
	}
	for _, ex := range slices.Concat(set.Train, set.Val) {
		if s := show(ex); strings.Contains(s, "label ") && !strings.Contains(text, "label") || len(ex.Tokens) > 40 || ex.Labelled() == 0 {
			t.Fatalf("%q: %s", text, s)
		}
	}
}
