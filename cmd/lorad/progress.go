package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"lorad/eval"
	"lorad/proto"
)

// progress shows a run while it is on: one line that is redrawn on a terminal, one line every few seconds elsewhere.
type progress struct {
	out      io.Writer
	terminal bool
	names    map[string]string // node id -> name

	started time.Time
	last    time.Time
	first   uint64 // step at which this display began
	rate    float64
	loss    float64
	eval    float64
	members string
	waits   string // what the run waited for last, in words

	watch  eval.Watch
	warned bool // of overfitting
}

const (
	redraw   = 100 * time.Millisecond
	loglines = 5 * time.Second
)

func newProgress(out *os.File, names map[string]string) *progress {
	return &progress{out: out, terminal: term.IsTerminal(int(out.Fd())), names: names, started: time.Now()}
}

// show takes one event of the run.
func (p *progress) show(e *proto.FollowEvent) {
	r := e.Run
	for _, s := range e.Steps {
		p.take(s)
	}
	p.change(r)
	p.idle(r)
	wait := loglines
	if p.terminal {
		wait = redraw
	}
	if len(e.Steps) == 0 || time.Since(p.last) < wait && r.Step < r.LastStep() {
		return
	}
	p.last = time.Now()
	p.draw(p.line(r))
}

func (p *progress) take(s *proto.StepRecord) {
	if p.first == 0 {
		p.first, p.started = s.Step, time.Now()
	}
	if p.loss == 0 {
		p.loss = s.Loss
	}
	p.loss += 0.1 * (s.Loss - p.loss) // a short moving average: single batches jump
	if s.DurationUs > 0 {
		now := float64(s.TotalTokens) * 1e6 / float64(s.DurationUs)
		if p.rate == 0 {
			p.rate = now
		}
		p.rate += 0.1 * (now - p.rate)
	}
	if s.EvalLoss != 0 {
		p.eval = s.EvalLoss
	}
	p.watch.Take(s.Step, s.Loss, s.EvalLoss)
	if p.watch.Overfits() && !p.warned {
		p.warned = true
		p.note(p.watch.Advice())
	}
}

// change says when other nodes work on the run than before, and why.
func (p *progress) change(r *proto.Run) {
	names := p.memberNames(r)
	if names == p.members || names == "" {
		return
	}
	if p.members != "" {
		p.note(fmt.Sprintf("now on %s: %s", names, r.Reason))
	}
	p.members = names
}

// idle says why nothing happens: for whom the run waits.
func (p *progress) idle(r *proto.Run) {
	if strings.HasPrefix(r.Reason, "waits for ") && r.Reason != p.waits {
		p.waits = r.Reason
		p.note("the run " + r.Reason)
	}
}

func (p *progress) memberNames(r *proto.Run) string {
	var names []string
	for _, id := range r.GetLease().GetMembers() {
		if n := p.names[id]; n != "" {
			id = n
		}
		names = append(names, id)
	}
	return strings.Join(names, " ")
}

func (p *progress) line(r *proto.Run) string {
	line := fmt.Sprintf("step %d/%d  loss %.3f", r.Step, r.Spec.Steps, p.loss)
	if p.eval != 0 {
		line += fmt.Sprintf("  eval loss %.3f", p.eval)
	}
	line += fmt.Sprintf("  %s tokens/s  ETA %s  on %s", short(p.rate), p.eta(r), p.members)
	return line
}

func (p *progress) eta(r *proto.Run) string {
	done, spent := r.Step-min(r.Step, p.first), time.Since(p.started)
	if done == 0 || spent < time.Second/2 {
		return "?"
	}
	left := spent / time.Duration(done) * time.Duration(r.LastStep()-r.Step)
	return left.Round(time.Second).String()
}

func short(x float64) string {
	switch {
	case x >= 1e6:
		return fmt.Sprintf("%.1fM", x/1e6)
	case x >= 1e4:
		return fmt.Sprintf("%.0fk", x/1e3)
	case x >= 1e3:
		return fmt.Sprintf("%.1fk", x/1e3)
	}
	return fmt.Sprintf("%.0f", x)
}

func (p *progress) draw(line string) {
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(p.out, line)
}

// note prints a line of its own above the live one.
func (p *progress) note(text string) {
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s\n", text)
		return
	}
	fmt.Fprintln(p.out, text)
}

// end leaves the live line standing.
func (p *progress) end() {
	if p.terminal && !p.last.IsZero() {
		fmt.Fprintln(p.out)
	}
}
