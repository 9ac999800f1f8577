package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"lorad/data"
	"lorad/engine"
	"lorad/eval"
	"lorad/infer"
)

type evalCmd struct {
	Records   string `arg:"" type:"existingfile" help:"Held-out records: JSONL, CSV, TSV or Parquet, in any format that train takes; or prompt (or question), choices and answer."`
	Adapter   string `type:"existingdir" help:"PEFT adapter folder; the base is evaluated beside it." placeholder:"DIR"`
	BaseModel string `help:"Hugging Face folder, or embedded (default: what the adapter was trained on, else embedded)." placeholder:"DIR"`
	Format    string `default:"auto" help:"Format of the records: auto, text, completion, alpaca, chat, legal, medical, code or finance."`
	Domain    string `enum:"general,legal-demo" default:"general" help:"Which words are names: general goes by capitals, legal-demo knows those of the embedded world."`
	Register  string `help:"Words of the field, for formality: legal, medical, finance, code, or a file of words." placeholder:"NAME"`
	MaxNew    int    `default:"64" help:"Tokens of an answer at most; 0 = no answers, perplexity alone."`
	useFlags  `embed:""`
}

// measured is one model's figures. Pointers are absent when they were not measured.
type measured struct {
	N             int                `json:"n"`
	Perplexity    *float64           `json:"perplexity,omitempty"`
	ExactMatch    *float64           `json:"exact_match,omitempty"`
	Hallucination *float64           `json:"hallucination_rate,omitempty"`
	Formality     *float64           `json:"formality,omitempty"`
	Choice        *float64           `json:"choice_accuracy,omitempty"`
	ChoiceNorm    *float64           `json:"choice_accuracy_per_byte,omitempty"`
	Tasks         map[string]float64 `json:"tasks,omitempty"`
	Mistakes      []eval.Mistake     `json:"mistakes,omitempty"`
}

type evalResult struct {
	Base    measured  `json:"base"`
	Adapted *measured `json:"adapted,omitempty"`
	// ReferenceFormality is that of the right answers.
	ReferenceFormality *float64 `json:"reference_formality,omitempty"`
}

func (e evalCmd) Run(a *app) error {
	defer a.endAtOnce()()
	base, err := baseOf(e.Adapter, e.BaseModel)
	if err != nil {
		return usage(err)
	}
	var register map[string]bool
	if e.Register != "" {
		if register, err = e.register(); err != nil {
			return usage(err)
		}
	}
	var r evalResult
	if e.Adapter != "" {
		r.Adapted = new(measured)
		if *r.Adapted, err = e.measure(base, e.Adapter, register, &r); err != nil {
			return err
		}
	}
	if r.Base, err = e.measure(base, "", register, &r); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) { r.print(w) })
}

// maxRegister bounds a file of words.
const maxRegister = 1 << 20

func (e evalCmd) register() (map[string]bool, error) {
	if set, ok := eval.Register(e.Register); ok {
		return set, nil
	}
	f, err := os.Open(e.Register)
	if err != nil {
		return nil, fmt.Errorf("register: %w; the built-in ones are %v", err, eval.Registers())
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRegister))
	return eval.WordSet(string(text)), err
}

func (e evalCmd) source() data.Source {
	return data.Source{Name: e.Records, Format: e.Format, Open: func() (io.ReadCloser, error) { return os.Open(e.Records) }}
}

// measure also has the next model computed where, and how, this one is.
func (e *evalCmd) measure(base, adapter string, register map[string]bool, r *evalResult) (out measured, err error) {
	m, err := e.open(base, adapter)
	if err != nil {
		return out, err
	}
	defer m.Close()
	e.Device, e.DType = m.Place().Device, m.Place().DType.String()
	questions, err := choices(e.source())
	if err != nil {
		return out, usage(err)
	}
	if len(questions) > 0 {
		return e.choose(m, questions)
	}
	set, err := m.Examples([]data.Source{e.source()}, data.Options{})
	if err != nil {
		return out, usage(err)
	}
	losses, err := m.Losses(set.Train)
	if err != nil {
		return out, err
	}
	var sum float64
	var labelled int64
	for i, ex := range set.Train {
		sum, labelled = sum+losses[i], labelled+int64(ex.Labelled())
	}
	perplexity := eval.Perplexity(sum, labelled)
	out.N, out.Perplexity = len(set.Train), &perplexity
	if e.MaxNew == 0 || set.Train[0].Prompt == "" { // plain text has no answers
		return out, nil
	}
	return out, e.answer(m, set.Train, register, &out, r)
}

// answer has the model answer every record.
func (e evalCmd) answer(m *infer.Model, examples []data.Example, register map[string]bool, out *measured, r *evalResult) error {
	answers, err := m.Answers(examples, engine.Sampling{MaxNew: e.MaxNew})
	if err != nil {
		return err
	}
	records, right := make([]eval.Record, len(examples)), make([]string, len(examples))
	for i, ex := range examples {
		records[i] = eval.Record{ID: ex.ID, Prompt: ex.Prompt, Want: ex.Completion, Task: ex.Task}
		right[i] = ex.Completion
	}
	domain := eval.Domain{}
	if e.Domain == "legal-demo" {
		domain = eval.Legal()
	}
	report, err := eval.Score(domain, records, answers)
	if err != nil {
		return err
	}
	out.ExactMatch, out.Hallucination, out.Mistakes = &report.Accuracy, &report.HallucinationRate, report.Examples
	if len(report.Tasks) > 1 {
		out.Tasks = map[string]float64{}
		for _, t := range report.Tasks {
			out.Tasks[t.Name] = t.Accuracy
		}
	}
	if register != nil {
		formality, reference := eval.Formality(register, answers), eval.Formality(register, right)
		out.Formality, r.ReferenceFormality = &formality, &reference
	}
	return nil
}

// question is a record with choices.
type question struct {
	prompt  string
	choices []string
	answer  int
}

// choices reads the records that have a list of choices: all of them, or none.
func choices(s data.Source) ([]question, error) {
	var out []question
	err := data.Rows(s, func(number int, row []byte) error {
		var r struct {
			Prompt, Question string
			Choices          []string
			Answer           json.RawMessage
		}
		if json.Unmarshal(row, &r) != nil || r.Choices == nil {
			if len(out) > 0 {
				return fmt.Errorf("read data %s:%d: no choices, which the rows before have", s.Name, number)
			}
			return nil
		}
		q := question{r.Prompt, r.Choices, -1}
		if q.prompt == "" {
			q.prompt = r.Question
		}
		var text string
		if json.Unmarshal(r.Answer, &q.answer) != nil && json.Unmarshal(r.Answer, &text) == nil {
			for i, c := range r.Choices {
				if c == text {
					q.answer = i
				}
			}
		}
		if q.prompt == "" || q.answer < 0 || q.answer >= len(r.Choices) {
			return fmt.Errorf("read data %s:%d: want a prompt (or question), choices, and as answer one of them or its index from 0", s.Name, number)
		}
		out = append(out, q)
		return nil
	})
	return out, err
}

// choose has the model weigh the choices of each question.
func (e evalCmd) choose(m *infer.Model, questions []question) (measured, error) {
	right, rightPerByte := 0, 0
	for _, q := range questions {
		losses, err := weigh(m, q)
		if err != nil {
			return measured{}, usage(err)
		}
		if eval.Best(losses, q.choices, false) == q.answer {
			right++
		}
		if eval.Best(losses, q.choices, true) == q.answer {
			rightPerByte++
		}
	}
	n := float64(len(questions))
	plain, norm := float64(right)/n, float64(rightPerByte)/n
	return measured{N: len(questions), Choice: &plain, ChoiceNorm: &norm}, nil
}

// weigh is the loss of each choice as the answer.
func weigh(m *infer.Model, q question) ([]float64, error) {
	var rows []byte
	for _, c := range q.choices {
		row, err := json.Marshal(map[string]string{"prompt": q.prompt, "completion": spaced(q.prompt) + c})
		if err != nil {
			return nil, err
		}
		rows = append(append(rows, row...), '\n')
	}
	set, err := m.Examples([]data.Source{inMemory(rows)}, data.Options{})
	if err != nil {
		return nil, err
	}
	return m.Losses(set.Train)
}

// spaced is the space between a prompt and an answer, if the prompt does not end in white space.
func spaced(prompt string) string {
	switch prompt[len(prompt)-1] {
	case ' ', '\n', '\t':
		return ""
	}
	return " "
}

func (r evalResult) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	head := "\tbase"
	if r.Adapted != nil {
		head += "\twith the adapter"
	}
	fmt.Fprintf(t, "%d records%s\n", r.Base.N, head)
	line := func(name, format string, scale float64, of func(*measured) *float64) {
		if of(&r.Base) == nil {
			return
		}
		fmt.Fprintf(t, "%s\t"+format, name, scale**of(&r.Base))
		if r.Adapted != nil {
			fmt.Fprintf(t, "\t"+format, scale**of(r.Adapted))
		}
		fmt.Fprintln(t)
	}
	line("perplexity of the answers", "%.3f", 1, func(m *measured) *float64 { return m.Perplexity })
	line("answers exactly right", "%.1f %%", 100, func(m *measured) *float64 { return m.ExactMatch })
	line("answers that name something not in the prompt", "%.1f %%", 100, func(m *measured) *float64 { return m.Hallucination })
	line("words of the field", "%.1f %%", 100, func(m *measured) *float64 { return m.Formality })
	line("right choices", "%.1f %%", 100, func(m *measured) *float64 { return m.Choice })
	line("right choices, by loss per byte", "%.1f %%", 100, func(m *measured) *float64 { return m.ChoiceNorm })
	t.Flush()
	if r.ReferenceFormality != nil {
		fmt.Fprintf(w, "words of the field in the right answers: %.1f %%\n", 100**r.ReferenceFormality)
	}
	last := &r.Base
	if r.Adapted != nil {
		last = r.Adapted
	}
	for _, m := range last.Mistakes[:min(3, len(last.Mistakes))] {
		fmt.Fprintf(w, "wrong: %s: said %q, right is %q\n", m.ID, printable(m.Got), printable(m.Want))
	}
}

func inMemory(rows []byte) data.Source {
	return data.Source{Name: "choices", Format: data.Completion, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(rows)), nil }}
}
