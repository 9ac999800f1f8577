package data

import (
	"fmt"
	"io"
	"strings"

	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// generation is Hugging Face's block {% generation %} ... {% endgeneration %}: it writes its body, and what it writes is
// what the model says. Where that ends up in the text is known only at the end, so a mark is written on either side, which
// Render takes out again.
type generation struct {
	at   *tokens.Token
	body *nodes.Wrapper
}

var _ nodes.ControlStructure = (*generation)(nil)

// markVariable is what the mark is called in the template's context.
const markVariable = "lorad_generation_mark"

func parseGeneration(p, args *parser.Parser) (nodes.ControlStructure, error) {
	g := &generation{at: p.Current()}
	if !args.End() {
		return nil, p.Error("generation takes no arguments", nil)
	}
	var err error
	g.body, _, err = p.WrapUntil("endgeneration")
	return g, err
}

func (g *generation) Position() *tokens.Token { return g.at }
func (g *generation) String() string {
	return fmt.Sprintf("generation(Line=%d Col=%d)", g.at.Line, g.at.Col)
}

// Execute writes the body in a scope of its own, as a Jinja call block does.
func (g *generation) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	mark, _ := r.Environment.Context.Get(markVariable)
	for _, write := range []func() error{
		func() error { _, err := io.WriteString(r.Output, mark.(string)); return err },
		func() error { return r.Inherit().ExecuteWrapper(g.body) },
		func() error { _, err := io.WriteString(r.Output, mark.(string)); return err },
	} {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// unusedMark is a text that occurs in none of the messages.
func unusedMark(messages []Message) string {
	mark := "\x00generation\x00"
	within := func(m Message) bool {
		for _, s := range m.extra {
			if strings.Contains(s, mark) {
				return true
			}
		}
		return strings.Contains(m.Role, mark) || strings.Contains(m.Content, mark)
	}
	for i := 0; i < len(messages); i++ {
		if within(messages[i]) {
			mark, i = mark+"\x00", -1
		}
	}
	return mark
}

// unmark takes the marks out of a text and returns the byte ranges between them that are not empty.
func unmark(marked, mark string) (text string, spans [][2]int) {
	parts := strings.Split(marked, mark)
	var out strings.Builder
	for i, part := range parts {
		from := out.Len()
		out.WriteString(part)
		if i%2 == 1 && part != "" {
			spans = append(spans, [2]int{from, out.Len()})
		}
	}
	return out.String(), spans
}
