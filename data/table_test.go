package data

import (
	"bytes"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
)

func file(name string) Source {
	return Source{Name: name, Open: func() (io.ReadCloser, error) { return os.Open("testdata/" + name) }}
}

func built(t *testing.T, opt Options, files ...Source) Set {
	t.Helper()
	set, err := Build(files, opt, byteTokenizer{}, "")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestOracleParquet: a file as pyarrow writes it gives the examples of the same rows in JSONL.
func TestOracleParquet(t *testing.T) {
	want := built(t, Options{Difficulty: "hard"}, file("chats.jsonl"))
	got := built(t, Options{Difficulty: "hard"}, file("chats.parquet"))
	if len(want.Train) != 302 || got.Hash != want.Hash {
		t.Errorf("%d examples with hash %x, want %d with %x", len(got.Train), got.Hash, len(want.Train), want.Hash)
	}
	if got.Train[301].ID != "chats.parquet:302" {
		t.Errorf("the last row is %s", got.Train[301].ID)
	}
}

func TestCSV(t *testing.T) {
	csv := "\ufeffinstruction,input,output,hard\n\"Say \"\"hi\"\", <now>\",,hi,2.5\n\"two\nlines\",x,\"a,b\", 7\n"
	want := built(t, Options{Difficulty: "hard"}, lines("x", `{"instruction": "Say \"hi\", <now>", "output": "hi", "hard": 2.5}`,
		`{"instruction": "two\nlines", "input": "x", "output": "a,b", "hard": 7}`))
	for name, text := range map[string]string{"x.csv": csv, "x.TSV": strings.NewReplacer(",,", "\t\t", ",hi,", "\thi\t", ",x,", "\tx\t", "ion,in", "ion\tin", "put,out", "put\tout", "put,h", "put\th", ", 7", "\t 7", "hi,2", "hi\t2").Replace(csv)} {
		got := built(t, Options{Difficulty: "hard"}, Source{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }})
		if got.Hash != want.Hash {
			t.Errorf("%s: %+v, want %+v", name, got.Train, want.Train)
		}
		if got.Train[0].ID != name+":2" || got.Train[1].ID != name+":3" {
			t.Errorf("rows are %s, %s", got.Train[0].ID, got.Train[1].ID)
		}
	}
}

func TestTablesThatAreDamaged(t *testing.T) {
	good, err := os.ReadFile("testdata/chats.parquet")
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(good)
	for i := 200; i < 400; i++ {
		broken[i] ^= 0xff
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty.csv":     {"", "read data empty.csv: header"},
		"ragged.csv":    {"text,b\nx\n", "line 2"},
		"column.csv":    {"prompt,other\nx,y\n", "column.csv:2: unknown format"},
		"short.parquet": {string(good[:1000]), "read data short.parquet"},
		"not.parquet":   {"PAR1", "read data not.parquet"},
		"cut.parquet":   {string(broken), "read data cut.parquet"},
	} {
		_, err := Build([]Source{{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(c.text)), nil }}}, Options{}, byteTokenizer{}, "")
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "read data") != 1 {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestWordings(t *testing.T) {
	for format, c := range map[string]struct{ line, prompt, completion string }{
		"legal":   {`{"query": "Q?", "analysis": "A."}`, "### Legal query:\nQ?\n\n### Analysis:\n", "A."},
		"medical": {`{"presentation": "P", "history": "H", "assessment": "A", "explanation": "E"}`, "### Patient presentation:\nP\n\n### History:\nH\n\n### Assessment:\n", "A\n\n### Explanation:\nE"},
		"code":    {`{"instruction": "I", "language": "go", "code": "x := {1}"}`, "### Instruction:\nI\n\n### Code:\n", "```go\nx := {1}\n```"},
		"finance": {`{"query": "Q", "figures": "1", "analysis": "A", "recommendation": ""}`, "### Financial query:\nQ\n\n### Figures:\n1\n\n### Analysis:\n", "A"},
	} {
		s := lines(format, c.line)
		s.Format = format
		ex := built(t, Options{}, s).Train[0]
		if ex.Prompt != c.prompt || ex.Completion != c.completion {
			t.Errorf("%s: %q, %q; want %q, %q", format, ex.Prompt, ex.Completion, c.prompt, c.completion)
		}
	}
	s := lines("own", `{"a": "1", "b": "2"}`)
	s.Wording = Wording{"{{{a}}} [[no {c} here]]", "{b}[[!{a}]]"}
	if ex := built(t, Options{}, s).Train[0]; ex.Prompt != "{1} " || ex.Completion != "2!1" {
		t.Errorf("own wording: %q, %q", ex.Prompt, ex.Completion)
	}
	for template, want := range map[string]string{
		"{": "is not {column}", "{}": "is not {column}", "a]]": "without [[", "[[a": "not closed", "[[ [[ ]] ]]": "inside", "{b": "is not {column}", "{x}": `no "x"`, "": "nothing to learn",
	} {
		s.Wording = Wording{"{a}", template}
		if _, err := Build([]Source{s}, Options{}, byteTokenizer{}, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", template, err, want)
		}
	}
}

func TestTaskPrefix(t *testing.T) {
	chat := lines("c", `{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]}`)
	chat.Task = "LEGAL"
	alpaca := lines("a", `{"prompt": "P", "completion": "C", "task": "code"}`, `{"prompt": "P", "completion": "C"}`)
	set := built(t, Options{TaskPrefix: true}, chat, alpaca)
	for i, want := range []string{"[LEGAL] U", "[code] P", "P"} {
		if !strings.Contains(set.Train[i].Prompt, want) || i == 2 && strings.Contains(set.Train[i].Prompt, "[") {
			t.Errorf("prompt %q, want %q", set.Train[i].Prompt, want)
		}
	}
	if set := built(t, Options{}, chat); strings.Contains(set.Train[0].Prompt, "LEGAL") || set.Train[0].Task != "LEGAL" {
		t.Errorf("without the prefix: %q, task %q", set.Train[0].Prompt, set.Train[0].Task)
	}
}

func TestShares(t *testing.T) {
	for _, c := range []struct {
		sizes       []int
		weights     []float64
		temperature float64
		want        []int
	}{
		{[]int{90, 10}, []float64{1, 1}, 0, []int{50, 50}},
		{[]int{90, 10}, []float64{3, 1}, 0, []int{75, 25}},
		{[]int{90, 10}, nil, 1, []int{90, 10}},
		{[]int{90, 10}, nil, 2, []int{75, 25}},
		{[]int{90, 10}, nil, 1e9, []int{50, 50}},
		{[]int{3, 3, 1}, []float64{1, 1, 1}, 0, []int{3, 2, 2}},
		{[]int{5, 0, 5}, []float64{1, 8, 1}, 0, []int{5, 0, 5}},
	} {
		if got := shares(c.sizes, c.weights, c.temperature); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v by %v, T %v: %v, want %v", c.sizes, c.weights, c.temperature, got, c.want)
		}
	}
}

func TestMixture(t *testing.T) {
	var big, small []string
	for i := range 90 {
		big = append(big, `{"text": "big `+strings.Repeat("x", i)+`"}`)
	}
	for i := range 10 {
		small = append(small, `{"text": "small `+strings.Repeat("y", i)+`"}`)
	}
	a, b := lines("big", big...), lines("small", small...)
	a.Weight, b.Weight = 3, 1
	set := built(t, Options{Seed: 4}, a, b)
	times := map[string]int{}
	for _, ex := range set.Train {
		times[ex.ID]++
	}
	kinds := map[string]int{}
	for id, n := range times {
		name, _, _ := strings.Cut(id, ":")
		kinds[name] += n
		if name == "big" && n != 1 || name == "small" && n != 2 && n != 3 {
			t.Errorf("%s comes up %d times", id, n)
		}
	}
	if len(set.Train) != 100 || kinds["big"] != 75 || kinds["small"] != 25 {
		t.Errorf("%d examples: %v", len(set.Train), kinds)
	}
	if again := built(t, Options{Seed: 4}, a, b); again.Hash != set.Hash {
		t.Error("another mixture the second time")
	}
	if other := built(t, Options{Seed: 5}, a, b); other.Hash == set.Hash {
		t.Error("the seed does not matter")
	}
}
