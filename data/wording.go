package data

import (
	"fmt"
	"strings"
)

// Wording lays records out by templates of the user's: {column} is the text of a column, {{ and }} are braces, and
// [[ ... ]] is left out when a column in it is absent or empty.
type Wording struct {
	Prompt, Completion string
}

// wordings are the named ones, for domains that keep the same columns again and again.
var wordings = map[string]Wording{
	"legal": {
		"### Legal query:\n{query}\n[[\n### Facts:\n{facts}\n]]\n### Analysis:\n",
		"{analysis}[[\n\n### Conclusion:\n{conclusion}]]",
	},
	"medical": {
		"### Patient presentation:\n{presentation}\n[[\n### History:\n{history}\n]]\n### Assessment:\n",
		"{assessment}[[\n\n### Explanation:\n{explanation}]]",
	},
	"code": {
		"### Instruction:\n{instruction}\n[[\n### Input:\n{input}\n]]\n### Code:\n",
		"```[[{language}]]\n{code}\n```[[\n\n### Explanation:\n{explanation}]]",
	},
	"finance": {
		"### Financial query:\n{query}\n[[\n### Figures:\n{figures}\n]]\n### Analysis:\n",
		"{analysis}[[\n\n### Recommendation:\n{recommendation}]]",
	},
}

// DomainWording is the named wording.
func DomainWording(name string) (Wording, bool) {
	w, ok := wordings[name]
	return w, ok
}

// Check compiles both templates.
func (w Wording) Check() error {
	for _, t := range []string{w.Prompt, w.Completion} {
		if _, err := compileWording(t); err != nil {
			return err
		}
	}
	if w.Completion == "" {
		return fmt.Errorf("completion_template: missing: without one there is nothing to learn")
	}
	return nil
}

// piece of a compiled template: literal text, a column, or an optional group.
type wordingPiece struct {
	text, column string
	group        []wordingPiece
}

func compileWording(t string) ([]wordingPiece, error) {
	pieces, rest, err := compilePieces(t, false)
	if err == nil && rest != "" {
		err = fmt.Errorf("wrong template: ]] without [[ before %q", clip([]byte(rest), 30))
	}
	return pieces, err
}

// compilePieces reads up to the end, or up to the ]] that closes a group, which is left in rest.
func compilePieces(t string, inGroup bool) (out []wordingPiece, rest string, err error) {
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			out = append(out, wordingPiece{text: text.String()})
			text.Reset()
		}
	}
	for t != "" {
		switch {
		case strings.HasPrefix(t, "{{"), strings.HasPrefix(t, "}}"):
			text.WriteByte(t[0])
			t = t[2:]
		case strings.HasPrefix(t, "]]"):
			flush()
			return out, t, nil
		case strings.HasPrefix(t, "[["):
			flush()
			var group []wordingPiece
			if group, t, err = compileGroup(t[2:], inGroup); err != nil {
				return nil, "", err
			}
			out = append(out, wordingPiece{group: group})
		case t[0] == '{':
			flush()
			name, after, ok := strings.Cut(t[1:], "}")
			if !ok || name == "" || strings.ContainsAny(name, "{\n") {
				return nil, "", fmt.Errorf("wrong template: %q is not {column}; write {{ for a brace", clip([]byte(t), 20))
			}
			out, t = append(out, wordingPiece{column: name}), after
		default:
			text.WriteByte(t[0])
			t = t[1:]
		}
	}
	flush()
	return out, "", nil
}

func compileGroup(t string, inGroup bool) ([]wordingPiece, string, error) {
	if inGroup {
		return nil, "", fmt.Errorf("wrong template: [[ inside of [[ ]]")
	}
	group, rest, err := compilePieces(t, true)
	if err == nil && rest == "" {
		err = fmt.Errorf("wrong template: [[ is not closed by ]]")
	}
	return group, strings.TrimPrefix(rest, "]]"), err
}

// write fills a template from a record. The words are the columns' texts alone.
func (l line) write(pieces []wordingPiece, words *[]string) (string, error) {
	var out strings.Builder
	for _, p := range pieces {
		switch {
		case p.group != nil:
			if l.complete(p.group) {
				s, err := l.write(p.group, words)
				if err != nil {
					return "", err
				}
				out.WriteString(s)
			}
		case p.column != "":
			s, err := l.text(p.column, false)
			if err != nil {
				return "", err
			}
			*words = append(*words, s)
			out.WriteString(s)
		default:
			out.WriteString(p.text)
		}
	}
	return out.String(), nil
}

// complete reports whether all columns of a group are there and not empty.
func (l line) complete(group []wordingPiece) bool {
	for _, p := range group {
		if p.column == "" {
			continue
		}
		if s, err := l.text(p.column, true); err != nil || s == "" {
			return err != nil // a wrong type is for write to report
		}
	}
	return true
}

// worded reads a record in a wording.
func (l line) worded(w Wording) (r record, err error) {
	var words []string
	for _, part := range []struct {
		template string
		to       *string
	}{{w.Prompt, &r.prompt}, {w.Completion, &r.answer}} {
		pieces, err := compileWording(part.template)
		if err == nil {
			*part.to, err = l.write(pieces, &words)
		}
		if err != nil {
			return r, err
		}
	}
	r.words = strings.Join(words, " ")
	return r, nil
}
