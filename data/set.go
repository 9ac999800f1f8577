package data

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"slices"
	"time"

	"lorad/data/curriculum"
	"lorad/engine"
)

// Example is one training sequence.
type Example struct {
	ID                 string  // file:line
	Tokens             []int32 // [n] ids
	Labels             []int32 // [n] Labels[i] is to be predicted at position i (shifted already), or engine.Ignore
	Difficulty         float64
	Task               string // of the record's "task" column, "" if it has none
	Prompt, Completion string // text before the last answer, and the answer: for evaluation by generation

	source int // index of its file
}

// Labelled counts the labels that carry loss.
func (e Example) Labelled() int { return engine.Batch{Labels: e.Labels}.Labelled() }

// Set is what a run trains and is evaluated on.
type Set struct {
	Train, Val []Example
	Hash       [32]byte // see Manifest
	Report     Report
}

// Report counts what became of the records.
type Report struct {
	Records    int   // lines read
	Train, Val int   // examples on each side
	Truncated  int   // examples cut to SequenceLen
	TooLong    int   // dropped by Excess = drop
	Unlabelled int   // dropped because no token of them is learnt
	Tokens     int64 // of both sides
	Labelled   int64 // of them, those that are predicted
	Warnings   []string
}

// What to do with an example of more than SequenceLen tokens.
const (
	Truncate = "truncate" // keep the first SequenceLen tokens
	Drop     = "drop"
	Raise    = "raise" // stop with an error
)

// Options say how records become examples.
type Options struct {
	SequenceLen   int    // longest example in tokens; 0 = no limit
	Excess        string // Truncate, Drop or Raise; empty = Truncate
	TrainOnInputs bool   // learn prompts too
	ValSetSize    float64
	Seed          uint64 // of the validation split
	Difficulty    string // column name; empty = curriculum.Difficulty of the record's own words
	Date          time.Time

	TaskPrefix     bool    // "[TASK] " before the first words of the user, in examples that have a task
	MixTemperature float64 // 0 = by the sources' weights
}

// DefaultDate is the day that chat templates see when Options.Date is zero: any fixed day will do.
var DefaultDate = time.Date(2024, time.July, 26, 0, 0, 0, 0, time.UTC)

// Build reads files into examples. tok and chatTemplate are the base's ("" = PlainTemplate). Errors name file:line.
func Build(files []Source, opt Options, tok Tokenizer, chatTemplate string) (Set, error) {
	if opt.Date.IsZero() {
		opt.Date = DefaultDate
	}
	enc, err := NewEncoder(tok, chatTemplate, opt.Date)
	if err != nil {
		return Set{}, fmt.Errorf("build data set: %w", err)
	}
	b := builder{opt: opt, enc: enc}
	for i, s := range files {
		if err := b.source(i, s); err != nil {
			return Set{}, err
		}
	}
	b.split()
	b.mix(files)
	return b.finish()
}

type builder struct {
	opt    Options
	enc    *Encoder
	set    Set
	format string // of the first line of the file that is being read
	first  int    // its number
}

// source appends the examples of one file.
func (b *builder) source(at int, s Source) error {
	s.Fields = s.Fields.withDefaults()
	if w, ok := DomainWording(s.Format); ok {
		s.Wording = w
	}
	if s.Wording != (Wording{}) {
		if err := s.Wording.Check(); err != nil {
			return fmt.Errorf("read data %s: %w", s.Name, err)
		}
	}
	b.format, b.first = "", 0
	return eachBlock(s, func(block []numbered) error {
		outcomes := make([]outcome, len(block))
		parallel(len(block), func(i int) { outcomes[i] = b.prepare(s, block[i]); outcomes[i].example.source = at })
		for i, o := range outcomes {
			if err := b.take(s, block[i].number, o); err != nil {
				return fmt.Errorf("read data %s:%d: %w", s.Name, block[i].number, err)
			}
		}
		return nil
	})
}

// outcome is what became of a line.
type outcome struct {
	format  string
	example Example
	fate    fate
	warning string
	err     error
}

type fate int

const (
	whole fate = iota
	truncated
	tooLong
)

// prepare makes an example of a line. It depends on nothing but the line, so lines are prepared in parallel.
func (b *builder) prepare(s Source, n numbered) (o outcome) {
	var l line
	if l, o.err = parseLine(n.text); o.err != nil {
		return o
	}
	if o.format = s.Format; s.Wording == (Wording{}) && (o.format == "" || o.format == Auto) {
		if o.format, o.err = detect(l, s.Fields); o.err != nil {
			return o
		}
	}
	o.example.ID = fmt.Sprintf("%s:%d", s.Name, n.number)
	if o.example.Task = s.Task; s.Task == "" && l.has("task") {
		o.example.Task, _ = l.text("task", true) // a task that is no string is some other column
	}
	b.fill(&o, l, s)
	return o
}

// fill formats and tokenises the record.
func (b *builder) fill(o *outcome, l line, s Source) {
	var r record
	var p passage
	if s.Wording != (Wording{}) {
		r, o.err = l.worded(s.Wording)
	} else {
		r, o.err = l.read(o.format, s.Fields)
	}
	if o.err != nil {
		return
	}
	if o.example.Difficulty, o.err = b.difficulty(l, r, s.Fields); o.err != nil {
		return
	}
	if b.opt.TaskPrefix && o.example.Task != "" {
		r.prefix("[" + o.example.Task + "] ")
	}
	if p, o.err = b.enc.format(r); o.err != nil {
		return
	}
	o.warning, o.example.Prompt, o.example.Completion = p.warning, p.prompt, p.completion
	o.fate, o.err = b.fit(&o.example, p)
}

// take adds the outcome of the next line. The first line decides the format; a file that changes it is refused.
func (b *builder) take(s Source, number int, o outcome) error {
	r := &b.set.Report
	switch {
	case o.err != nil:
		return o.err
	case b.first == 0:
		b.format, b.first = o.format, number
	case o.format != b.format:
		return fmt.Errorf("mixed formats: this line is %s, line %d was %s; put them into files of their own", o.format, b.first, b.format)
	}
	r.Records++
	b.warn(o.warning)
	switch {
	case o.fate == tooLong:
		r.TooLong++
		return nil
	case o.fate == truncated:
		r.Truncated++
	}
	if o.example.Labelled() == 0 {
		r.Unlabelled++
	} else if s.HeldOut {
		b.set.Val = append(b.set.Val, o.example)
	} else {
		b.set.Train = append(b.set.Train, o.example)
	}
	return nil
}

func (b *builder) difficulty(l line, r record, f Fields) (float64, error) {
	column := f.Difficulty
	if column == "" {
		column = b.opt.Difficulty
	}
	if column == "" {
		return curriculum.Difficulty(r.words), nil
	}
	return l.number(column)
}

// fit tokenises the passage and applies the length policy.
func (b *builder) fit(ex *Example, p passage) (f fate, err error) {
	ids, learnt := b.enc.tokens(p, b.opt.TrainOnInputs)
	if limit := b.opt.SequenceLen; limit > 0 && len(ids) > limit {
		switch b.opt.Excess {
		case Raise:
			return f, fmt.Errorf("too long: %d tokens, sequence_len is %d; raise it, or set excess_length_strategy to truncate or drop", len(ids), limit)
		case Drop:
			return tooLong, nil
		}
		f, ids, learnt = truncated, slices.Clone(ids[:limit]), learnt[:limit] // a clone lets go of the rest
	}
	ex.Tokens, ex.Labels = ids, shift(ids, learnt)
	return f, nil
}

func (b *builder) warn(text string) {
	if text != "" && !slices.Contains(b.set.Report.Warnings, text) {
		b.set.Report.Warnings = append(b.set.Report.Warnings, text)
	}
}

func (b *builder) finish() (Set, error) {
	r := &b.set.Report
	r.Train, r.Val = len(b.set.Train), len(b.set.Val)
	if r.Train == 0 {
		return Set{}, fmt.Errorf("build data set: empty: no training example is left of %d records (%d too long, %d with nothing to learn, %d for validation)",
			r.Records, r.TooLong, r.Unlabelled, r.Val)
	}
	for _, ex := range slices.Concat(b.set.Train, b.set.Val) {
		r.Tokens += int64(len(ex.Tokens))
		r.Labelled += int64(ex.Labelled())
	}
	if r.Truncated > 0 {
		b.warn(fmt.Sprintf("%d examples were cut to %d tokens", r.Truncated, b.opt.SequenceLen))
	}
	if r.Unlabelled > 0 {
		b.warn(fmt.Sprintf("%d records were dropped: nothing of them is learnt (no answer, or the answer is beyond sequence_len)", r.Unlabelled))
	}
	if n := twins(b.set.Train, b.set.Val); n > 0 {
		b.warn(fmt.Sprintf("%d held-out examples are in the training set too", n))
	}
	b.set.Hash = Manifest(b.set.Train, b.set.Val)
	return b.set, nil
}

// Manifest hashes everything about examples that decides what a step computes: SHA-256 over, all little-endian,
//
//	"lorad-manifest/1\n"
//	for train, then val:
//	  u64 number of examples
//	  for each example, in order:
//	    u64 n | n x i32 tokens | n x i32 labels | u64 IEEE 754 bits of the difficulty
//
// IDs, tasks and texts are not in it.
func Manifest(train, val []Example) [32]byte {
	h := sha256.New()
	h.Write([]byte("lorad-manifest/1\n"))
	for _, side := range [][]Example{train, val} {
		writeU64(h, uint64(len(side)))
		for _, ex := range side {
			writeTokens(h, ex)
			writeU64(h, math.Float64bits(ex.Difficulty))
		}
	}
	return [32]byte(h.Sum(nil))
}

func writeTokens(h hash.Hash, ex Example) {
	writeU64(h, uint64(len(ex.Tokens)))
	buf := make([]byte, 0, 8*len(ex.Tokens))
	for _, ids := range [][]int32{ex.Tokens, ex.Labels} {
		for _, id := range ids {
			buf = binary.LittleEndian.AppendUint32(buf, uint32(id))
		}
	}
	h.Write(buf)
}

func writeU64(h hash.Hash, x uint64) { h.Write(binary.LittleEndian.AppendUint64(nil, x)) }

// Difficulties lists the difficulties of examples in order, as curriculum.New wants them.
func Difficulties(examples []Example) []float64 {
	out := make([]float64, len(examples))
	for i, ex := range examples {
		out[i] = ex.Difficulty
	}
	return out
}

// Gather concatenates the examples with the given indices into a batch.
func Gather(examples []Example, indices []int) engine.Batch {
	n := 0
	for _, i := range indices {
		n += len(examples[i].Tokens)
	}
	b := engine.Batch{Tokens: make([]int32, 0, n), Labels: make([]int32, 0, n), Starts: make([]int32, 1, len(indices)+1)}
	for _, i := range indices {
		b.Tokens = append(b.Tokens, examples[i].Tokens...)
		b.Labels = append(b.Labels, examples[i].Labels...)
		b.Starts = append(b.Starts, int32(len(b.Tokens)))
	}
	return b
}
