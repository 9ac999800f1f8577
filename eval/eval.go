// Package eval scores the answers of a model on held-out records: exact match, and hallucinated names.
//
// Everything here is pure: whoever generates the answers passes them in, and perplexity is set by the caller from
// loss sums, because neither needs a model here. A Domain says what counts as a name; Score knows no domain. Adding
// one is a Domain value and nothing else.
//
// Why exact match and not a fuzzy score: the answers are one short sentence whose whole content is a name or a
// sum, so a near miss is a wrong party. Why names and not facts for the hallucination rate: whether a name stands in
// the prompt can be decided without understanding either.
package eval

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Record is one held-out example.
type Record struct {
	ID     string `json:"id"`
	Prompt string `json:"prompt"`
	Want   string `json:"completion"`
	Task   string `json:"task"`
}

// Report is what was measured.
type Report struct {
	N                 int       `json:"n"`
	Perplexity        float64   `json:"perplexity"` // set by the caller: see Perplexity
	Accuracy          float64   `json:"accuracy"`   // share of exact matches, 0..1
	HallucinationRate float64   `json:"hallucination_rate"`
	Tasks             []Task    `json:"tasks,omitempty"`    // by name
	Examples          []Mistake `json:"examples,omitempty"` // at most MaxExamples, in the order of the records
}

// Task is the same for the records of one task.
type Task struct {
	Name              string  `json:"name"`
	N                 int     `json:"n"`
	Accuracy          float64 `json:"accuracy"`
	HallucinationRate float64 `json:"hallucination_rate"`
}

// Mistake is a wrong answer, to show.
type Mistake struct {
	ID       string   `json:"id"`
	Task     string   `json:"task"`
	Question string   `json:"question"`
	Want     string   `json:"want"`
	Got      string   `json:"got"`
	Invented []string `json:"invented,omitempty"` // names in Got that are not in the prompt
}

// MaxExamples bounds Report.Examples.
const MaxExamples = 8

// Score compares answers[i] with records[i].
func Score(d Domain, records []Record, answers []string) (Report, error) {
	if len(records) != len(answers) {
		return Report{}, fmt.Errorf("score: %d records but %d answers: give one answer for each record", len(records), len(answers))
	}
	var all tally
	tasks := map[string]*tally{}
	var names []string
	report := Report{N: len(records)}
	for i, r := range records {
		got := Answer(answers[i])
		if strings.Contains(strings.TrimSpace(r.Want), "\n") { // a long answer is judged whole
			got = strings.TrimSpace(answers[i])
		}
		invented := d.Invented(r.Prompt, got)
		right := Exact(r.Want, answers[i])
		if tasks[r.Task] == nil {
			tasks[r.Task] = &tally{}
			names = append(names, r.Task)
		}
		all.add(right, len(invented) > 0)
		tasks[r.Task].add(right, len(invented) > 0)
		if !right && len(report.Examples) < MaxExamples {
			report.Examples = append(report.Examples, Mistake{r.ID, r.Task, question(r.Prompt), Answer(r.Want), got, invented})
		}
	}
	report.Accuracy, report.HallucinationRate = all.rates()
	slices.Sort(names)
	for _, n := range names {
		t := Task{Name: n, N: tasks[n].n}
		t.Accuracy, t.HallucinationRate = tasks[n].rates()
		report.Tasks = append(report.Tasks, t)
	}
	return report, nil
}

// Perplexity is exp of the mean token loss in nats. It is NaN without tokens.
func Perplexity(lossSum float64, tokens int64) float64 {
	return math.Exp(lossSum / float64(tokens))
}

// Answer is the part of a generated text that is compared with a reference of one line: its first line, trimmed. A base model that goes on with
// a question of its own is judged by what it said first. Case and punctuation are kept.
func Answer(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(line)
}

// question is the last line of a prompt that asks something, for showing.
func question(prompt string) string {
	lines := strings.Split(prompt, "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasSuffix(strings.TrimSpace(lines[i]), "?") {
			return strings.TrimPrefix(strings.TrimSpace(lines[i]), "Question: ")
		}
	}
	return ""
}

type tally struct{ n, right, invented int }

func (t *tally) add(right, invented bool) {
	t.n++
	if right {
		t.right++
	}
	if invented {
		t.invented++
	}
}

func (t *tally) rates() (accuracy, hallucination float64) {
	if t.n == 0 {
		return 0, 0
	}
	return float64(t.right) / float64(t.n), float64(t.invented) / float64(t.n)
}
