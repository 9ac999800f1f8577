package world

import (
	"fmt"
	"math"
	"strings"
)

// Split names one of the two disjoint sets of cases.
type Split string

// The two splits. A party of a held-out case is in no training case: its full name is reserved by its hash.
const (
	Train   Split = "train"
	Heldout Split = "heldout"
)

// Record is one legal example, as it stands in the JSONL files. Prompt + Completion is the text; the loss is on
// the completion.
type Record struct {
	ID         string  `json:"id"`
	Prompt     string  `json:"prompt"`
	Completion string  `json:"completion"`
	Task       string  `json:"task"`
	Difficulty float64 `json:"difficulty"` // reading steps to the answer + sentences/10; see difficulty
}

// Each case is asked for both roles and for one more thing: the same passage with two answers leaves no way
// round reading it.
const (
	trainCases      = 1000
	heldoutCases    = 50
	questionsOfCase = 3
)

// Legal returns the records of a split: 3,000 for Train, 150 for Heldout.
func Legal(seed uint64, split Split) ([]Record, error) {
	switch split {
	case Train:
		return legalRecords(seed, kindTrain, split, trainCases), nil
	case Heldout:
		return legalRecords(seed, kindHeldout, split, heldoutCases), nil
	}
	return nil, fmt.Errorf("legal split %q: unknown: use train or heldout", split)
}

func legalRecords(seed, kind uint64, split Split, cases int) []Record {
	out := make([]Record, 0, cases*questionsOfCase)
	for i := range cases {
		r := stream(seed, kind, uint64(i))
		c := newLawsuit(r, split)
		for j, q := range c.questions(r) {
			out = append(out, Record{
				ID:     fmt.Sprintf("%s-%04d-%d", split, i, j),
				Prompt: "Case: " + c.text + "\nQuestion: " + q.question + "\nAnswer:", Completion: " " + q.answer,
				Task: q.task, Difficulty: q.difficulty,
			})
		}
	}
	return out
}

// reserved says whether a full name belongs to held-out cases: one in eight.
func reserved(name string) bool { return hash(name)%8 == 0 }

// litigant draws a party of the split.
func (c *cast) litigant(split Split) party {
	for {
		used := len(c.used)
		p := c.party(25)
		if reserved(p.name) == (split == Heldout) {
			return p
		}
		c.used = c.used[:used]
	}
}

// lawsuit is a case that has been decided, and its summary.
type lawsuit struct {
	plaintiff, defendant party
	claim                claimType
	forPlaintiff         bool
	sum                  string // what the loser pays
	filing, ruling       form
	text                 string
	sentences            int
}

// form is one wording. steps counts how much legal reading it takes: 1 when the roles stand in plain order,
// more when they are inverted, passive or behind a synonym.
type form struct {
	text  string
	steps int
}

type claimType struct {
	name  string   // "breach of contract"
	facts []string // who did what, with {P} the plaintiff and {D} the defendant
}

func newLawsuit(r *rng, split Split) *lawsuit {
	c := &cast{r: r}
	s := &lawsuit{plaintiff: c.litigant(split), defendant: c.litigant(split), claim: pick(r, claims),
		forPlaintiff: r.percent(50), sum: crowns(r), filing: pick(r, filings)}
	s.ruling = pick(r, rulingsFor)
	if !s.forPlaintiff {
		s.ruling = pick(r, rulingsAgainst)
	}
	fill := strings.NewReplacer("{P}", s.plaintiff.name, "{D}", s.defendant.name, "{C}", s.claim.name, "{M}", s.sum,
		"{T}", c.town(), "{N}", crownsBut(r, s.sum), "{J}", c.judge(), "{X}", number(r.between(2, 9)*10))
	var told []string
	for _, f := range s.plan(r) {
		told = append(told, capital(fill.Replace(f)))
	}
	s.text, s.sentences = strings.Join(told, " "), len(told)
	return s
}

// judge is a surname alone: a third name in the passage that is never an answer.
func (c *cast) judge() string { return c.word(surnames) }

func crownsBut(r *rng, not string) string {
	for {
		if m := crowns(r); m != not {
			return m
		}
	}
}

// plan orders the sentences: the facts mostly come before the filing, the ruling is last or is followed by the court.
func (s *lawsuit) plan(r *rng) []string {
	facts := pick(r, s.claim.facts)
	out := []string{facts, s.filing.text}
	if r.percent(15) {
		out = []string{s.filing.text, facts}
	}
	if r.percent(20) {
		out = append(out, pick(r, between))
	}
	out = append(out, s.ruling.text)
	if r.percent(15) {
		out = append(out, pick(r, closings))
	}
	return out
}

type legalQuestion struct {
	task, question, answer string
	difficulty             float64
}

// questions asks for both roles and one of the other tasks.
func (s *lawsuit) questions(r *rng) []legalQuestion {
	winner, payer := s.plaintiff.name, s.defendant.name
	if !s.forPlaintiff {
		winner, payer = payer, winner
	}
	role, outcome := s.difficulty(s.filing.steps), s.difficulty(s.filing.steps+s.ruling.steps)
	more := []legalQuestion{
		{"winner", pick(r, []string{"Who won the case?", "Who won?"}), winner + " won.", outcome},
		{"payer", "Who must pay?", payer + " must pay.", outcome},
		{"claim", "What is the claim?", "The claim is " + s.claim.name + ".", s.difficulty(1)},
	}
	return []legalQuestion{
		{"plaintiff", "Who is the plaintiff?", "The plaintiff is " + s.plaintiff.name + ".", role},
		{"defendant", "Who is the defendant?", "The defendant is " + s.defendant.name + ".", role},
		pick(r, more),
	}
}

// difficulty is the number of reading steps plus a tenth per sentence, rounded to that tenth.
func (s *lawsuit) difficulty(steps int) float64 {
	return math.Round(10*float64(steps)+float64(s.sentences)) / 10
}
