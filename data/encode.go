package data

import (
	"fmt"
	"strings"
	"time"

	"lorad/engine"
)

// Tokenizer is what this package needs of one (model/tokenizer.Tokenizer is one). It is used by many goroutines.
type Tokenizer interface {
	Encode(text string, addSpecial bool) []int32
	Piece(id int32) string // raw text of a token, "" when there is none
	BOS() int32            // -1 = none
	EOS() int32            // -1 = none
}

// Encoder turns texts into the token sequences that a model is trained on and prompted with: the tokens that the
// post-processor puts in front are there exactly once. Prompting a tuned model through another path than this one
// shows it something it was not trained on. It is safe for concurrent use.
type Encoder struct {
	tok      Tokenizer
	front    []int32 // what the post-processor writes before a text: usually BOS or nothing
	eos      int32
	template *Template
}

// NewEncoder joins a tokenizer and a chat template (Jinja; "" = PlainTemplate). date is the day that templates see.
func NewEncoder(tok Tokenizer, chatTemplate string, date time.Time) (*Encoder, error) {
	e := &Encoder{tok: tok, eos: tok.EOS()}
	e.front = tok.Encode("", true)
	if n := len(e.front); n > 0 && e.front[n-1] == e.eos && e.eos != tok.BOS() {
		e.front = e.front[:n-1] // EOS behind a prompt would end it; it is added where it is learnt
	}
	t, err := NewTemplate(chatTemplate, piece(tok, tok.BOS()), piece(tok, e.eos), date)
	if err != nil {
		return nil, err
	}
	e.template = t
	return e, nil
}

func piece(tok Tokenizer, id int32) string {
	if id < 0 {
		return ""
	}
	return tok.Piece(id)
}

// Encode tokenises a text that begins a sequence.
func (e *Encoder) Encode(text string) []int32 {
	ids := e.tok.Encode(text, false)
	if commonPrefix(ids, e.front) == len(e.front) {
		return ids // the text has them already, as most chat templates do
	}
	return append(append(make([]int32, 0, len(e.front)+len(ids)), e.front...), ids...)
}

// passage is a formatted record: its text and the byte ranges of it that are learnt.
type passage struct {
	text               string
	learn              [][2]int // in order
	close              bool     // EOS is still to come
	prompt, completion string   // for evaluation: the last answer and what comes before it
	warning            string
}

// format lays a record out as text.
func (e *Encoder) format(r record) (passage, error) {
	if r.messages != nil {
		return e.conversation(r.messages)
	}
	text := r.prompt + r.answer
	return passage{text: text, learn: [][2]int{{len(r.prompt), len(text)}}, close: true, prompt: r.prompt, completion: r.answer}, nil
}

// conversation renders messages and finds every assistant turn: where the template says so itself with {% generation %}
// (TRL's assistant_only_loss), or else by rendering what comes before the turn. A template that rewrites earlier turns (to drop
// their reasoning, say) and marks nothing has no such place for them: then the last turn alone is learnt.
func (e *Encoder) conversation(messages []Message) (p passage, err error) {
	for len(messages) > 0 && messages[len(messages)-1].Role != "assistant" {
		messages = messages[:len(messages)-1] // nothing is learnt from what follows the last answer
	}
	if len(messages) == 0 {
		return p, nil
	}
	if p.text, p.learn, err = e.template.render(messages, false); err != nil {
		return p, err
	}
	if len(p.learn) > 0 {
		return p.marked(messages[len(messages)-1].Content), nil
	}
	for k, m := range messages {
		if m.Role != "assistant" {
			continue
		}
		last := k == len(messages)-1
		turn, before, err := e.turn(messages[:k+1], p.text)
		switch {
		case err != nil:
			return p, err
		case turn[0] < 0 && last:
			return p, fmt.Errorf("chat template: not supported: it writes the prompt of the last answer in another way than the conversation")
		case turn[0] < 0:
			p.warning = "the chat template rewrites earlier turns: only the last answer of such conversations is learnt"
			continue
		}
		p.learn = append(p.learn, turn)
		p.prompt, p.completion = before, m.Content
	}
	p.close = !closed(p.text[p.learn[len(p.learn)-1][0]:], p.completion)
	return p, nil
}

// marked completes a passage whose template has marked what the model says.
func (p passage) marked(answer string) passage {
	last := p.learn[len(p.learn)-1]
	p.prompt, p.completion = p.text[:last[0]], answer
	p.close = !closed(p.text[last[0]:], answer)
	return p
}

// closed reports whether a template writes something of its own, an end-of-turn token, after the answer.
func closed(turn, answer string) bool {
	_, tail, found := strings.Cut(turn, strings.TrimSpace(answer))
	return !found || strings.TrimSpace(tail) != ""
}

// turn is the range of the last of the messages in the text of the whole conversation, -1 if it is not there.
func (e *Encoder) turn(messages []Message, text string) (at [2]int, before string, err error) {
	if before, err = e.template.Render(messages[:len(messages)-1], true); err != nil {
		return at, "", err
	}
	through, err := e.template.Render(messages, false)
	if err != nil {
		return at, "", err
	}
	if !strings.HasPrefix(text, through) || !strings.HasPrefix(through, before) {
		return [2]int{-1, -1}, before, nil
	}
	return [2]int{len(before), len(through)}, before, nil
}

// tokens encodes a passage and marks the tokens that are learnt. A token belongs to the prompt if tokenising the
// text before the answer alone gives the same token at the same place.
func (e *Encoder) tokens(p passage, all bool) (ids []int32, learnt []bool) {
	ids = e.Encode(p.text)
	learnt = make([]bool, len(ids), len(ids)+1)
	for _, r := range p.learn {
		from, to := e.offset(p.text, r[0], ids), e.offset(p.text, r[1], ids)
		for i := from; i < to; i++ {
			learnt[i] = true
		}
	}
	if p.close && e.eos >= 0 && (len(ids) == 0 || ids[len(ids)-1] != e.eos) {
		ids, learnt = append(ids, e.eos), append(learnt, true)
	}
	if all {
		for i := range learnt {
			learnt[i] = true
		}
	}
	return ids, learnt
}

// offset is the number of tokens of ids that lie before byte at of the text.
func (e *Encoder) offset(text string, at int, ids []int32) int {
	switch at {
	case 0:
		return 0
	case len(text):
		return len(ids)
	}
	return commonPrefix(e.Encode(text[:at]), ids)
}

func commonPrefix(a, b []int32) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// shift makes labels of learnt tokens: position i is to predict token i+1.
func shift(ids []int32, learnt []bool) []int32 {
	labels := make([]int32, len(ids))
	for i := range labels {
		labels[i] = engine.Ignore
		if i+1 < len(ids) && learnt[i+1] {
			labels[i] = ids[i+1]
		}
	}
	return labels
}
