package data

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Formats of Source.Format.
const (
	Auto       = "auto"
	Text       = "text"
	Completion = "completion"
	Alpaca     = "alpaca"
	Chat       = "chat"
)

// Alpaca's wording (Taori et al., "Stanford Alpaca", 2023), with the newline after the last heading that most
// tools write. A system message takes the place of the first sentence.
const (
	AlpacaPreamble      = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
	AlpacaPreambleInput = "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request."
	AlpacaInstruction   = "\n\n### Instruction:\n"
	AlpacaInput         = "\n\n### Input:\n"
	AlpacaResponse      = "\n\n### Response:\n"
)

// AlpacaPrompt is the text before the answer. system and input may be empty.
func AlpacaPrompt(system, instruction, input string) string {
	preamble := system
	if preamble == "" {
		preamble = AlpacaPreamble
		if input != "" {
			preamble = AlpacaPreambleInput
		}
	}
	if input != "" {
		input = AlpacaInput + input
	}
	return preamble + AlpacaInstruction + instruction + input + AlpacaResponse
}

// record is one parsed line: either a prompt and an answer, or messages.
type record struct {
	prompt, answer string
	messages       []Message
	words          string // its own words without any template, for the difficulty
}

// prefix writes a text before the first words of the user; a text without a prompt begins with it, and it is not learnt.
func (r *record) prefix(text string) {
	for i, m := range r.messages {
		if m.Role == "user" {
			r.messages = slices.Clone(r.messages)
			r.messages[i].Content = text + m.Content
			return
		}
	}
	if r.messages == nil {
		r.prompt = text + r.prompt
	}
}

// Message is one turn of a conversation.
type Message struct {
	Role    string // system, user or assistant
	Content string
	extra   map[string]string // other string columns, which some templates read
}

// line is the JSON object of a record.
type line map[string]json.RawMessage

func parseLine(text []byte) (line, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fmt.Errorf("wrong format: %w", err)
	}
	return l, nil
}

func (l line) has(name string) bool {
	raw, ok := l[name]
	return ok && string(raw) != "null"
}

// text reads a string column; a missing or null one is an error unless optional.
func (l line) text(name string, optional bool) (string, error) {
	if !l.has(name) {
		if optional {
			return "", nil
		}
		return "", fmt.Errorf("missing: no %q; the line has %s", name, l.keys())
	}
	var s string
	if err := json.Unmarshal(l[name], &s); err != nil {
		return "", fmt.Errorf("wrong type: %q is not a string: %s", name, clip(l[name], 40))
	}
	return s, nil
}

func (l line) keys() string {
	names := slices.Sorted(maps.Keys(l))
	for i, n := range names {
		if !l.has(n) {
			names[i] += " (null)"
		}
	}
	if len(names) == 0 {
		return "no keys"
	}
	return strings.Join(names, ", ")
}

// withDefaults fills in the usual names. messages depends on the line: OpenAI's or ShareGPT's.
func (f Fields) withDefaults() Fields {
	or := func(p *string, name string) {
		if *p == "" {
			*p = name
		}
	}
	or(&f.Text, "text")
	or(&f.Prompt, "prompt")
	or(&f.Completion, "completion")
	or(&f.Instruction, "instruction")
	or(&f.Input, "input")
	or(&f.Output, "output")
	or(&f.System, "system")
	return f
}

// detect finds the format of a line from its keys. Some sets carry both messages and a copy of the first prompt, so
// the richest format wins.
func detect(l line, f Fields) (string, error) {
	switch {
	case l.has(f.messagesIn(l)):
		return Chat, nil
	case l.has(f.Instruction) && l.has(f.Output):
		return Alpaca, nil
	case l.has(f.Prompt) && l.has(f.Completion):
		return Completion, nil
	case l.has(f.Text):
		return Text, nil
	}
	return "", fmt.Errorf("unknown format: the line has %s; expected %s | %s and %s | %s and %s | messages | conversations, or name the columns (field, field_prompt, ...)",
		l.keys(), f.Text, f.Prompt, f.Completion, f.Instruction, f.Output)
}

func (f Fields) messagesIn(l line) string {
	if f.Messages != "" {
		return f.Messages
	}
	if l.has("conversations") && !l.has("messages") {
		return "conversations"
	}
	return "messages"
}

// read makes a record of a line in the given format.
func (l line) read(format string, f Fields) (r record, err error) {
	switch format {
	case Text:
		r.answer, err = l.text(f.Text, false)
	case Completion:
		r, err = l.completion(f)
	case Alpaca:
		return l.alpaca(f)
	case Chat:
		return l.chat(f)
	}
	r.words = r.prompt + " " + r.answer
	return r, err
}

// completion also reads plain text: that is what axolotl calls a completion.
func (l line) completion(f Fields) (r record, err error) {
	if !l.has(f.Prompt) && !l.has(f.Completion) && l.has(f.Text) {
		r.answer, err = l.text(f.Text, false)
		return r, err
	}
	if r.prompt, err = l.text(f.Prompt, false); err != nil {
		return r, err
	}
	r.answer, err = l.text(f.Completion, false)
	return r, err
}

func (l line) alpaca(f Fields) (r record, err error) {
	if l.has("history") && string(l["history"]) != "[]" {
		return r, fmt.Errorf("not supported: \"history\"; write the turns as messages")
	}
	var instruction, input, system string
	for _, c := range []struct {
		to       *string
		name     string
		optional bool
	}{{&instruction, f.Instruction, false}, {&input, f.Input, true}, {&r.answer, f.Output, false}, {&system, f.System, true}} {
		if *c.to, err = l.text(c.name, c.optional); err != nil {
			return r, err
		}
	}
	r.prompt = AlpacaPrompt(system, instruction, input)
	r.words = strings.Join([]string{system, instruction, input, r.answer}, " ")
	return r, nil
}

// roles translates ShareGPT's speakers.
func role(name string) (string, error) {
	switch name {
	case "system", "user", "assistant":
		return name, nil
	case "human":
		return "user", nil
	case "gpt", "chatgpt", "bot", "model", "bing":
		return "assistant", nil
	}
	return "", fmt.Errorf("not supported: role %q; lorad trains on system, user (human) and assistant (gpt) turns", name)
}

func (l line) chat(f Fields) (r record, err error) {
	column := f.messagesIn(l)
	var turns []line
	if !l.has(column) {
		return r, fmt.Errorf("missing: no %q; the line has %s", column, l.keys())
	}
	if err := json.Unmarshal(l[column], &turns); err != nil {
		return r, fmt.Errorf("wrong type: %q is not a list of objects: %s", column, clip(l[column], 40))
	}
	if system, err := l.text(f.System, true); err != nil {
		return r, err
	} else if system != "" {
		r.messages = append(r.messages, Message{Role: "system", Content: system})
	}
	var words []string
	for i, t := range turns {
		m, err := t.message(f)
		if err != nil {
			return r, fmt.Errorf("%s[%d]: %w", column, i, err)
		}
		r.messages = append(r.messages, m)
		words = append(words, m.Content)
	}
	if len(turns) == 0 {
		return r, fmt.Errorf("missing: %q is empty", column)
	}
	r.words = strings.Join(words, " ")
	return r, nil
}

// message reads one turn: role and content, or ShareGPT's from and value.
func (l line) message(f Fields) (m Message, err error) {
	who, what := f.Role, f.Content
	sharegpt := l.has("from") && !l.has("role")
	if who == "" && sharegpt {
		who = "from"
	} else if who == "" {
		who = "role"
	}
	if what == "" && sharegpt {
		what = "value"
	} else if what == "" {
		what = "content"
	}
	if m.Content, err = l.text(what, false); err != nil {
		return m, err
	}
	if m.Role, err = l.text(who, false); err != nil {
		return m, err
	}
	if m.Role, err = role(m.Role); err != nil {
		return m, err
	}
	return m, l.extras(&m, who, what)
}

// extras keeps the other string columns of a turn and refuses what would silently be lost, such as tool calls.
func (l line) extras(m *Message, who, what string) error {
	for _, name := range slices.Sorted(maps.Keys(l)) {
		if name == who || name == what || !l.has(name) || string(l[name]) == "[]" {
			continue
		}
		s, err := l.text(name, true)
		if err != nil {
			return fmt.Errorf("not supported: %q in a message: %s", name, clip(l[name], 40))
		}
		if m.extra == nil {
			m.extra = map[string]string{}
		}
		m.extra[name] = s
	}
	return nil
}

// number reads a numeric column.
func (l line) number(name string) (float64, error) {
	if !l.has(name) {
		return 0, fmt.Errorf("missing: no difficulty column %q; the line has %s", name, l.keys())
	}
	var x float64
	err := json.Unmarshal(l[name], &x)
	if text := ""; err != nil && json.Unmarshal(l[name], &text) == nil { // a cell of a CSV file
		x, err = strconv.ParseFloat(strings.TrimSpace(text), 64)
	}
	if err != nil {
		return 0, fmt.Errorf("wrong type: difficulty column %q is not a number: %s", name, clip(l[name], 40))
	}
	return x, nil
}
