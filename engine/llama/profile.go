package llama

import "time"

// Profile adds up where the time of steps goes: wall time of the goroutine that drives them, by stage and by kind of work.
type Profile struct {
	Spent [Stages][Kinds]time.Duration

	stage Stage
	kind  Kind
	since time.Time
}

// Stage is a part of a step.
type Stage int

// Stages of a step. The head's forward and backward pass and the loss alternate chunk by chunk, and are one stage.
const (
	Forward Stage = iota
	Head
	Backward
	Stages
)

// Kind is what is computed.
type Kind int

// Kinds of work: products with weights; scores, softmax and values; everything that goes through memory once.
const (
	Gemm Kind = iota
	Attention
	Rowwise
	Kinds
)

// SetProfile has the time of all following passes added to p; nil ends that.
func (m *Model[T]) SetProfile(p *Profile) { m.profile = p }

// begin starts the clock of a stage, and ends that of the one before.
func (p *Profile) begin(s Stage, k Kind) {
	if p == nil {
		return
	}
	p.end()
	p.stage, p.kind, p.since = s, k, time.Now()
}

// enter changes the kind of work within a stage and returns what it was; outside a stage nothing counts.
func (p *Profile) enter(k Kind) Kind {
	if p == nil || p.since.IsZero() {
		return k
	}
	old := p.kind
	p.begin(p.stage, k)
	return old
}

func (p *Profile) end() {
	if p == nil || p.since.IsZero() {
		return
	}
	p.Spent[p.stage][p.kind] += time.Since(p.since)
	p.since = time.Time{}
}
