package job

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxBytes bounds a job file. Real ones have a few hundred bytes.
const maxBytes = 1 << 20

// Parse reads a job and fills in every default. The error holds all mistakes (errors.Join of *Error), in the
// order of the lines.
func Parse(yaml []byte) (Job, error) {
	j, _, err := ParseNotes(yaml)
	return j, err
}

// ParseNotes is Parse that also says which keys were accepted and change nothing.
func ParseNotes(yaml []byte) (Job, []string, error) {
	d := newDoc(yaml)
	j := defaults()
	if root := d.root(yaml); root != nil {
		set := decode(d, root, &j, jobKeys(), aliases(), ignored())
		d.finish(&j, set)
	}
	if len(d.errs) > 0 {
		return Job{}, nil, d.err()
	}
	return j, d.notes, nil
}

// doc is a job file being read: its lines for quoting and the mistakes found so far.
type doc struct {
	lines []string
	errs  []*Error
	notes []string
}

func newDoc(yaml []byte) *doc {
	text := strings.ReplaceAll(strings.ReplaceAll(string(yaml), "\r\n", "\n"), "\r", "\n")
	return &doc{lines: strings.Split(text, "\n")}
}

// unprintable notes the first character that a YAML stream may not have (YAML 1.2.2, section 5.1), or bytes that are none.
func (d *doc) unprintable() bool {
	for i, line := range d.lines {
		for col, r := range line {
			bad := r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 && r != 0x85
			if r == utf8.RuneError {
				_, size := utf8.DecodeRuneInString(line[col:])
				bad = size == 1
			}
			if bad {
				e := &Error{Line: i + 1, Column: col + 1, Message: fmt.Sprintf("syntax: character %q is not one of a text file in UTF-8; remove it", r), Source: strings.ToValidUTF8(line, "?")}
				d.errs = append(d.errs, e)
				return true
			}
		}
	}
	return false
}

// root parses the file down to its one mapping, or notes why that is impossible.
func (d *doc) root(yaml []byte) *ast.MappingNode {
	if len(yaml) > maxBytes {
		d.fail(nil, "", "too large: %d bytes; a job has at most %d", len(yaml), maxBytes)
		return nil
	}
	if d.unprintable() {
		return nil
	}
	file, err := parser.ParseBytes(yaml, 0)
	if err != nil {
		d.syntax(err)
		return nil
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		d.fail(nil, "", "empty: a job needs at least base_model and datasets")
	case len(bodies) > 1:
		d.fail(bodies[1].GetToken(), "", "syntax: a second document starts here; a job is one document")
	default:
		return d.mapping(bodies[0], "job")
	}
	return nil
}

// syntax turns the YAML library's error into one of ours.
func (d *doc) syntax(err error) {
	var at interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &at) {
		d.fail(at.GetToken(), "", "syntax: %s", at.GetMessage())
		return
	}
	d.fail(nil, "", "syntax: %v", err)
}

func (d *doc) mapping(n ast.Node, what string) *ast.MappingNode {
	if m, ok := n.(*ast.MappingNode); ok {
		return m
	}
	d.fail(n.GetToken(), "", "wrong type: %s is a mapping of keys to values, not %s", what, kindOf(n))
	return nil
}

// given is a key as it was first set: under which name and where.
type given struct {
	name string
	at   *token.Token
}

// decode fills dst from a mapping and returns the canonical keys that were given.
func decode[T any](d *doc, m *ast.MappingNode, dst *T, keys []key[T], also []alias, no []none) map[string]given {
	set := map[string]given{}
	for _, kv := range m.Values {
		at := kv.Key.GetToken()
		name, ok := keyName(kv.Key)
		if !ok {
			d.fail(at, "", "syntax: merge keys, anchors and nested keys are not supported; write the keys out")
			continue
		}
		k, value, skip := d.resolve(name, at, kv.Value, also, no)
		if skip {
			continue
		}
		row, found := find(keys, k)
		if !found {
			d.fail(at, name, "unknown key%s", suggest(name, slices.Concat(names(keys), aliasNames(also))))
			continue
		}
		assign(d, row, dst, given{name, at}, value, set)
	}
	return set
}

// resolve translates an alias with its own spelling of values and drops keys that change nothing.
func (d *doc) resolve(name string, at *token.Token, value ast.Node, also []alias, no []none) (string, spelt, bool) {
	v := spelt{node: value}
	text := word(value)
	for _, n := range no {
		if n.name != name {
			continue
		}
		if n.ok != nil && !slices.Contains(n.ok, text) {
			d.fail(at, name, "%s", n.why)
		} else if n.ok == nil {
			d.notes = append(d.notes, fmt.Sprintf("%s: %s", name, n.why))
		}
		return name, v, true
	}
	for _, a := range also {
		if a.name != name {
			continue
		}
		to, ok := a.value[text]
		if !ok {
			d.fail(at, name, "%s", a.refuse)
		}
		v.text = &to
		return a.key, v, !ok || to == ""
	}
	return name, v, false
}

// spelt is what a key was given: a node, or the text an alias stands for.
type spelt struct {
	node ast.Node
	text *string
}

// assign converts, checks and stores one value, and compares it with the one given under another name.
func assign[T any](d *doc, k key[T], dst *T, g given, v spelt, set map[string]given) {
	if v.text == nil {
		if _, null := v.node.(*ast.NullNode); null {
			return // "key:" with nothing behind it means the default
		}
	}
	field := reflect.ValueOf(k.at(dst)).Elem()
	fresh := reflect.New(field.Type())
	if complaint := d.convert(k.Key, k.words, fresh.Interface(), v); complaint != "" {
		d.fail(g.at, g.name, "%s", complaint)
		return
	}
	if k.check != nil {
		if complaint := k.check(fresh.Elem().Interface()); complaint != "" {
			d.fail(g.at, g.name, "out of range: %s", complaint)
			return
		}
	}
	if before, twice := set[k.Name]; twice && !reflect.DeepEqual(field.Interface(), fresh.Elem().Interface()) {
		d.fail(g.at, g.name, "contradiction: %s on line %d is the same key with another value; keep one", before.name, before.at.Position.Line)
		return
	}
	field.Set(fresh.Elem())
	set[k.Name] = g
}

func keyName(n ast.Node) (string, bool) {
	if _, merge := n.(*ast.MergeKeyNode); merge {
		return "", false
	}
	return scalar(n)
}

func aliasNames(also []alias) []string {
	var out []string
	for _, a := range also {
		out = append(out, a.name)
	}
	return out
}
