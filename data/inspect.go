package data

import (
	"cmp"
	"slices"
	"strings"
)

// Findings is what is worth a look before training. Counts are of examples.
type Findings struct {
	Duplicates    int      // training examples that another one equals, token for token; what a mixture repeats is not counted
	EmptyAnswers  int      // nothing but the end of the text is learnt
	SharedPrompts int      // held-out examples whose prompt is a training example's: they measure memory
	Where         []string // ids of the first few of each kind, "duplicate: train.jsonl:7 = train.jsonl:3"
}

const findingsShown = 5 // of each kind

// Inspect looks for what makes a data set worse than its size.
func Inspect(s Set) Findings {
	var f Findings
	seen, prompts := map[[32]byte]string{}, map[string]string{}
	for _, ex := range s.Train {
		key := contentKey(0, ex)
		switch first, ok := seen[key]; {
		case !ok:
			seen[key] = ex.ID
		case first != ex.ID:
			f.note(&f.Duplicates, "duplicate: "+ex.ID+" = "+first)
		}
		if ex.Prompt != "" {
			prompts[ex.Prompt] = cmp.Or(prompts[ex.Prompt], ex.ID)
		}
	}
	for _, ex := range slices.Concat(s.Train, s.Val) {
		if ex.Prompt != "" && strings.TrimSpace(ex.Completion) == "" {
			f.note(&f.EmptyAnswers, "empty answer: "+ex.ID)
		}
	}
	for _, ex := range s.Val {
		if first := prompts[ex.Prompt]; first != "" {
			f.note(&f.SharedPrompts, "prompt of held-out "+ex.ID+" is that of "+first)
		}
	}
	return f
}

func (f *Findings) note(count *int, where string) {
	if *count++; *count <= findingsShown {
		f.Where = append(f.Where, where)
	}
}

// Lengths are the 50th, 95th and 100th percentile of the examples' lengths, in tokens.
func Lengths(examples []Example) (median, p95, longest int) {
	if len(examples) == 0 {
		return 0, 0, 0
	}
	n := make([]int, len(examples))
	for i, ex := range examples {
		n[i] = len(ex.Tokens)
	}
	slices.Sort(n)
	return n[(len(n)-1)/2], n[(len(n)-1)*95/100], n[len(n)-1]
}

// Rows calls f with the rows of a source as JSON objects, numbered as in the examples' ids.
func Rows(s Source, f func(number int, row []byte) error) error { return eachRow(s, f) }

// Extension is the part of a file's name that says how it is read, ".jsonl" unless it is a table's.
func Extension(name string) string {
	ext := strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
	switch ext {
	case "csv", "tsv", "parquet":
		return "." + ext
	}
	return ".jsonl"
}
