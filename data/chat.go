package data

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
	"github.com/nikolalohinski/gonja/v2/parser"
)

// PlainTemplate renders conversations for a base without a chat template: a heading per turn, and EOS at the end of
// every assistant turn.
const PlainTemplate = `{%- for m in messages -%}
{%- if not loop.first -%}{{ "\n\n" }}{%- endif -%}
{{- "### " + m.role | capitalize + ":\n" + m.content -}}
{%- if m.role == "assistant" -%}{{ eos_token }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "\n\n### Assistant:\n" }}{%- endif -%}
`

// maxRendered bounds what a template may write for one conversation, in bytes: templates are other people's programs.
const maxRendered = 2 * MaxLine

// Template is a compiled chat template. The language is Jinja as Hugging Face's tokenizers run it: blocks are
// trimmed, raise_exception and strftime_now are there. What would read a file (include, import) or draw at random is
// refused. It is safe for concurrent use.
type Template struct {
	compiled *exec.Template
	bos, eos string
	limit    int // of what it may write, in bytes
}

// NewTemplate compiles a chat template; the empty one is PlainTemplate. bos and eos are the texts of the tokens
// ("" = none). date is what strftime_now tells the template.
func NewTemplate(source, bos, eos string, date time.Time) (t *Template, err error) {
	defer recovered(&err)
	if source == "" {
		source = PlainTemplate
	}
	c := config.New()
	c.TrimBlocks, c.LeftStripBlocks = true, true
	compiled, err := exec.NewTemplate(templateName, c, soleTemplate(desugar(source)), environment(date))
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // the outer one repeats the whole template
		}
		return nil, fmt.Errorf("chat template: syntax that is wrong or not supported: %w; rewrite it there, or remove the template", err)
	}
	return &Template{compiled, bos, eos, maxRendered}, nil
}

// Render writes a conversation; heading adds that of the assistant's next turn.
func (t *Template) Render(messages []Message, heading bool) (string, error) {
	text, _, err := t.render(messages, heading)
	return text, err
}

// render also returns the byte ranges, none of them empty, that {% generation %} blocks wrote, in order.
func (t *Template) render(messages []Message, heading bool) (text string, spans [][2]int, err error) {
	defer recovered(&err)
	turns := make([]any, len(messages))
	for i, m := range messages {
		turn := map[string]any{"role": m.Role, "content": m.Content}
		for k, v := range m.extra {
			turn[k] = v
		}
		turns[i] = turn
	}
	out, mark := &limited{left: t.limit}, unusedMark(messages)
	err = t.compiled.Execute(out, exec.NewContext(map[string]any{
		"messages": turns, "add_generation_prompt": heading, "bos_token": t.bos, "eos_token": t.eos,
		"tools": nil, "documents": nil, markVariable: mark,
	}))
	if err != nil {
		return "", nil, fmt.Errorf("chat template: %w", err)
	}
	text, spans = unmark(out.text.String(), mark)
	return text, spans, nil
}

// recovered makes an error of a panic: other people's programs in somebody's interpreter.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("chat template: the interpreter panicked: %v", r)
	}
}

// environment is gonja's without chance, and with what Hugging Face adds.
func environment(date time.Time) *exec.Environment {
	no := func(name string) exec.FilterFunction {
		return func(*exec.Evaluator, *exec.Value, *exec.VarArgs) *exec.Value {
			return exec.AsValue(fmt.Errorf("not supported: the filter %s", name))
		}
	}
	filters := exec.NewFilterSet(map[string]exec.FilterFunction{}).Update(builtins.Filters).
		Update(exec.NewFilterSet(map[string]exec.FilterFunction{"random": no("random"), "tojson": toJSON}))
	globals := exec.EmptyContext().Update(builtins.GlobalFunctions).Update(builtins.GlobalVariables)
	globals.Set("lipsum", nil)
	globals.Set("raise_exception", func(message string) (string, error) { return "", fmt.Errorf("refused by the template: %s", message) })
	globals.Set("strftime_now", func(format string) (string, error) { return strftime(date, format) })
	blocks := exec.NewControlStructureSet(map[string]parser.ControlStructureParser{"generation": parseGeneration}).Update(builtins.ControlStructures)
	return &exec.Environment{Filters: filters, Tests: builtins.Tests, ControlStructures: blocks,
		Methods: builtins.Methods, Context: globals}
}

// toJSON is Hugging Face's json.dumps(x, ensure_ascii=False) for what messages are made of. Lists and objects, which
// Python spaces in its own way, do not come up without tools.
func toJSON(_ *exec.Evaluator, in *exec.Value, _ *exec.VarArgs) *exec.Value {
	if !in.IsString() {
		return exec.AsValue(fmt.Errorf("not supported: the filter tojson on anything but a string"))
	}
	return exec.AsSafeValue(quote(in.String()))
}

// quote writes a JSON string as Python does: only quotes, backslashes and control characters are escaped.
func quote(s string) string {
	short := map[rune]string{'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch e, ok := short[r]; {
		case ok:
			b.WriteString(e)
		case r < 0x20:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// strftime writes the directives that chat templates use.
func strftime(t time.Time, format string) (string, error) {
	layouts := map[byte]string{'d': "02", 'b': "Jan", 'B': "January", 'm': "01", 'Y': "2006", 'y': "06", 'A': "Monday",
		'a': "Mon", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'j': "002"}
	var out strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			out.WriteByte(format[i])
			continue
		}
		i++
		layout, ok := layouts[format[i]]
		switch {
		case format[i] == '%':
			out.WriteByte('%')
		case !ok:
			return "", fmt.Errorf("not supported: %%%c in strftime_now", format[i])
		default:
			out.WriteString(t.Format(layout))
		}
	}
	return out.String(), nil
}

const templateName = "chat_template"

// soleTemplate is a loader that knows one template and no files.
type soleTemplate string

func (s soleTemplate) Read(name string) (io.Reader, error) {
	if name != templateName {
		return nil, fmt.Errorf("not supported: a chat template may not read %q", name)
	}
	return strings.NewReader(string(s)), nil
}
func (s soleTemplate) Resolve(name string) (string, error)    { return name, nil }
func (s soleTemplate) Inherit(string) (loaders.Loader, error) { return s, nil }

// limited is a buffer that fails when it is full.
type limited struct {
	text bytes.Buffer // not embedded: its other ways to be written to know no limit
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("too large: it writes too much for one conversation")
	}
	return l.text.Write(p)
}
