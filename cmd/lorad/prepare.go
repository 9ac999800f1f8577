package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"

	"lorad/data"
	"lorad/infer"
	"lorad/job"
	"lorad/model"
	"lorad/model/tokenizer"
	"lorad/node"
	"lorad/node/recipe"
)

type prepareCmd struct {
	Job   string `arg:"" help:"Job file (YAML)."`
	Show  int    `default:"3" help:"Examples to show."`
	Score string `help:"Write the records to this folder with a column perplexity: the base model's, of each answer. difficulty: column:perplexity then orders by it." placeholder:"DIR"`
}

// prepared is what the model will see.
type prepared struct {
	Records     int            `json:"records"`
	Train       int            `json:"train"`
	Validation  int            `json:"validation"`
	Truncated   int            `json:"truncated"`
	TooLong     int            `json:"too_long"`
	Unlabelled  int            `json:"unlabelled"`
	Tokens      int64          `json:"tokens"`
	Learnt      int64          `json:"learnt"`
	Length      map[string]int `json:"length"`
	Tasks       map[string]int `json:"tasks,omitempty"`
	Steps       int            `json:"steps"`
	Duplicates  int            `json:"duplicates"`
	Empty       int            `json:"empty_answers"`
	Leaks       int            `json:"shared_prompts"`
	Manifest    string         `json:"manifest_sha256"`
	Warnings    []string       `json:"warnings"`
	Examples    []shown        `json:"examples"`
	tokenizer   *tokenizer.Tokenizer
	train       []data.Example
	scoredFiles []string
}

// shown is an example in pieces: runs of tokens that are learnt, or not.
type shown struct {
	ID         string  `json:"id"`
	Task       string  `json:"task,omitempty"`
	Difficulty float64 `json:"difficulty"`
	Tokens     int     `json:"tokens"`
	Learnt     int     `json:"learnt"`
	Pieces     []piece `json:"pieces"`
}

type piece struct {
	Text   string `json:"text"`
	Learnt bool   `json:"learnt"`
}

func (p prepareCmd) Run(a *app) error {
	defer a.endAtOnce()()
	j, err := readJob(p.Job)
	if err != nil {
		return err
	}
	base, err := model.Open(baseFolder(j.BaseModel))
	if err != nil {
		return usage(fmt.Errorf("base_model %s: %w", j.BaseModel, err))
	}
	defer base.Close()
	tok, err := base.Tokenizer()
	if err != nil {
		return usage(fmt.Errorf("base_model %s: %w", j.BaseModel, err))
	}
	sources := data.SourcesOf(j, func(path string) (io.ReadCloser, error) { return os.Open(path) })
	set, err := data.Build(sources, data.OptionsOf(j), tok, base.ChatTemplate())
	if err != nil {
		return usage(err)
	}
	out, err := p.describe(j, set, tok)
	if err != nil {
		return usage(err)
	}
	if p.Score != "" {
		if out.scoredFiles, err = p.score(j, set, sources); err != nil {
			return err
		}
	}
	return a.print(out, func(w io.Writer) { out.print(w, term.IsTerminal(int(os.Stdout.Fd()))) })
}

// readJob reads a job file; its paths are taken from its folder.
func readJob(path string) (job.Job, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return job.Job{}, err
	}
	j, notes, err := job.ParseNotes(text)
	if err != nil {
		return j, usage(fmt.Errorf("%s: %w", path, err))
	}
	for _, n := range notes {
		fmt.Fprintf(os.Stderr, "%s: %s\n", path, n)
	}
	abs, err := filepath.Abs(path)
	return j.Resolve(filepath.Dir(abs), func(p string) bool { return p == node.EmbeddedBase }), err
}

func (p prepareCmd) describe(j job.Job, set data.Set, tok *tokenizer.Tokenizer) (prepared, error) {
	plan, err := recipe.PlanOf(j, set.Train)
	if err != nil {
		return prepared{}, err
	}
	r, f := set.Report, data.Inspect(set)
	median, p95, longest := data.Lengths(set.Train)
	out := prepared{Records: r.Records, Train: r.Train, Validation: r.Val, Truncated: r.Truncated, TooLong: r.TooLong, Unlabelled: r.Unlabelled,
		Tokens: r.Tokens, Learnt: r.Labelled, Length: map[string]int{"median": median, "p95": p95, "longest": longest}, Steps: plan.Steps(),
		Duplicates: f.Duplicates, Empty: f.EmptyAnswers, Leaks: f.SharedPrompts, Manifest: fmt.Sprintf("%x", set.Hash), Tasks: tasks(set.Train),
		Warnings: slices.Concat([]string{}, warnings(r, f), f.Where), tokenizer: tok, train: set.Train}
	for _, batch := range plan.Batch(0) {
		for _, i := range batch {
			if len(out.Examples) < p.Show {
				out.Examples = append(out.Examples, show(set.Train[i], tok))
			}
		}
	}
	return out, nil
}

func warnings(r data.Report, f data.Findings) []string {
	out := slices.Clone(r.Warnings)
	for _, w := range []struct {
		n    int
		text string
	}{
		{f.Duplicates, "%d training examples are there more than once: they count more than they should; remove them"},
		{f.EmptyAnswers, "%d answers are empty: the model learns to say nothing"},
		{f.SharedPrompts, "%d held-out examples have a prompt that is trained on: their loss measures memory"},
	} {
		if w.n > 0 {
			out = append(out, fmt.Sprintf(w.text, w.n))
		}
	}
	return out
}

func tasks(examples []data.Example) map[string]int {
	out := map[string]int{}
	for _, ex := range examples {
		if ex.Task != "" {
			out[ex.Task]++
		}
	}
	return out
}

// show cuts an example where its mask changes. Token i is learnt if position i-1 is to predict it.
func show(ex data.Example, tok *tokenizer.Tokenizer) shown {
	out := shown{ID: ex.ID, Task: ex.Task, Difficulty: ex.Difficulty, Tokens: len(ex.Tokens), Learnt: ex.Labelled()}
	learnt := func(i int) bool { return i > 0 && ex.Labels[i-1] >= 0 }
	for from := 0; from < len(ex.Tokens); {
		to := from + 1
		for to < len(ex.Tokens) && learnt(to) == learnt(from) {
			to++
		}
		out.Pieces = append(out.Pieces, piece{tok.Decode(ex.Tokens[from:to], false), learnt(from)})
		from = to
	}
	return out
}

// print writes the examples with what is learnt in green, or without colours between guillemets.
func (p prepared) print(w io.Writer, colour bool) {
	open, shut := "«", "»"
	if colour {
		open, shut = "\x1b[32m", "\x1b[0m"
	}
	for _, e := range p.Examples {
		fmt.Fprintf(w, "--- %s  difficulty %.3g  %d tokens, %d learnt%s\n", e.ID, e.Difficulty, e.Tokens, e.Learnt, prefixed("  task ", e.Task))
		for _, piece := range e.Pieces {
			if piece.Learnt {
				fmt.Fprint(w, open, printable(piece.Text), shut)
			} else {
				fmt.Fprint(w, printable(piece.Text))
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\n%d records: %d to train on, %d held out; %d cut short, %d dropped as too long, %d with nothing to learn\n",
		p.Records, p.Train, p.Validation, p.Truncated, p.TooLong, p.Unlabelled)
	fmt.Fprintf(w, "%d tokens, %d of them learnt; lengths: half up to %d, 95 %% up to %d, the longest %d\n",
		p.Tokens, p.Learnt, p.Length["median"], p.Length["p95"], p.Length["longest"])
	for _, t := range sortedKeys(p.Tasks) {
		fmt.Fprintf(w, "task %s: %d\n", t, p.Tasks[t])
	}
	fmt.Fprintf(w, "%d steps\n", p.Steps)
	for _, f := range p.scoredFiles {
		fmt.Fprintf(w, "written: %s\n", f)
	}
	for _, text := range p.Warnings {
		fmt.Fprintf(w, "warning: %s\n", text)
	}
}

// printable keeps other people's text from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}

func prefixed(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// score writes each data set with the base model's perplexity of every record that became an example.
func (p prepareCmd) score(j job.Job, set data.Set, sources []data.Source) ([]string, error) {
	m, err := infer.Open(baseFolder(j.BaseModel), nil, infer.Options{})
	if err != nil {
		return nil, usage(err)
	}
	all := slices.Concat(set.Train, set.Val)
	values, err := m.Perplexities(all)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]float64, len(all))
	for i, ex := range all {
		byID[ex.ID] = values[i]
	}
	if err := os.MkdirAll(p.Score, 0o755); err != nil {
		return nil, err
	}
	var written []string
	for _, s := range sources {
		base := filepath.Base(s.Name)
		name := filepath.Join(p.Score, strings.TrimSuffix(base, filepath.Ext(base))+".jsonl")
		if err := writeScored(name, s, byID); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		written = append(written, name)
	}
	return written, nil
}

// writeScored never writes over what is there: that may be the records themselves.
func writeScored(name string, s data.Source, perplexity map[string]float64) error {
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = data.Rows(s, func(number int, row []byte) error {
		v, ok := perplexity[fmt.Sprintf("%s:%d", s.Name, number)]
		if !ok {
			return nil
		}
		var record map[string]json.RawMessage
		if err := json.Unmarshal(row, &record); err != nil {
			return err
		}
		record["perplexity"] = fmt.Appendf(nil, "%.6g", v)
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return enc.Encode(record)
	})
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}
