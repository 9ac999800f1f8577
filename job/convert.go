package job

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dlclark/regexp2"
	"github.com/goccy/go-yaml/ast"
)

// convert reads a value into the pointer dst and says what is wrong with it, or nothing.
func (d *doc) convert(k Key, words map[string]string, dst any, v spelt) string {
	switch p := dst.(type) {
	case *[]Dataset:
		return d.datasets(k, p, v.node)
	case *Targets:
		if k.Quiet && v.empty() {
			return ""
		}
		return targets(p, v)
	case *[]string:
		if v.empty() {
			return ""
		}
		return stringList(p, v)
	case *map[string]int:
		return pairs(p, v, "a mapping of modules to whole numbers")
	case *map[string]float64:
		return pairs(p, v, "a mapping of modules to numbers")
	}
	text, ok := v.scalar()
	if !ok {
		return fmt.Sprintf("wrong type: expected %s, got %s", typeName(dst), kindOf(v.node))
	}
	if w, ok := words[text]; ok {
		text = w
	}
	if k.Values != nil && !slices.Contains(k.Values, text) {
		return fmt.Sprintf("not supported: %q; give %s", text, oneOf(k.Values))
	}
	if !parseScalar(dst, text, v) {
		hint := ""
		if v.quoted() {
			hint = " in quotes"
		}
		return fmt.Sprintf("wrong type: expected %s, got %q%s", typeName(dst), text, hint)
	}
	return ""
}

// parseScalar stores text in dst. Numbers are read from the text, not from the YAML library's guess: 2e-4 is a
// string to YAML 1.1.
func parseScalar(dst any, text string, v spelt) bool {
	if _, isString := dst.(*string); !isString && v.quoted() {
		return false
	}
	var err error
	switch p := dst.(type) {
	case *string:
		*p = text
	case *int:
		*p, err = parseInt(text)
	case *uint64:
		*p, err = strconv.ParseUint(text, 10, 64)
	case *float64:
		*p, err = parseFloat(text)
	case *bool:
		*p = text == "true"
		return text == "true" || text == "false"
	}
	return err == nil
}

func parseInt(text string) (int, error) {
	if n, err := strconv.Atoi(text); err == nil {
		return n, nil
	}
	f, err := parseFloat(text) // 1e4 and 100.0 are whole numbers too
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, fmt.Errorf("not a whole number")
	}
	return int(f), nil
}

var decimal = regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$`)

// parseFloat reads decimal notation only: no hexadecimal, no underscores, no inf or nan.
func parseFloat(text string) (float64, error) {
	if !decimal.MatchString(text) {
		return 0, fmt.Errorf("not a number")
	}
	return strconv.ParseFloat(text, 64)
}

// targets reads a list of names; a comma-separated string is one too; a string with regular expression syntax is
// PEFT's regular expression. The words all and all-linear mean every linear layer.
func targets(p *Targets, v spelt) string {
	if seq, ok := v.node.(*ast.SequenceNode); ok && v.text == nil {
		return targetList(p, seq)
	}
	text, ok := v.scalar()
	if !ok || text == "" {
		return "wrong type: expected a list of module names, one regular expression, or all-linear"
	}
	if moduleNames.MatchString(text) {
		for _, name := range strings.Split(text, ",") {
			p.Names = append(p.Names, strings.TrimSpace(name))
		}
		return p.normalise()
	}
	if _, err := regexp2.Compile(text, regexp2.None); err != nil { // the engine of package peft, which knows Python's look-arounds
		return fmt.Sprintf("wrong type: not a regular expression: %v", err)
	}
	p.Regex = text
	return ""
}

var moduleNames = regexp.MustCompile(`^\s*[\w-]+(\.[\w-]+)*(\s*,\s*[\w-]+(\.[\w-]+)*)*\s*$`)

func targetList(p *Targets, seq *ast.SequenceNode) string {
	for _, n := range seq.Values {
		name, ok := scalar(n)
		if !ok || name == "" {
			return "wrong type: expected a list of module names"
		}
		p.Names = append(p.Names, name)
	}
	if len(p.Names) == 0 {
		return "out of range: the list is empty; name a module, or give all-linear"
	}
	return p.normalise()
}

// normalise spells "all linear layers" one way. Order does not matter to PEFT's rules, so names are sorted.
func (t *Targets) normalise() string {
	slices.Sort(t.Names)
	t.Names = slices.Compact(t.Names)
	for _, n := range t.Names {
		if low := strings.ToLower(n); low == "all" || low == AllLinear {
			t.Names = []string{AllLinear}
			break
		}
	}
	return ""
}

// datasets reads a path, a list of paths, or a list of mappings.
func (d *doc) datasets(k Key, p *[]Dataset, n ast.Node) string {
	if text, ok := scalar(n); ok {
		for _, path := range strings.Split(text, ",") {
			*p = append(*p, Dataset{Path: strings.TrimSpace(path), Type: "auto"})
		}
		return pathsGiven(*p)
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		return fmt.Sprintf("wrong type: expected a list of data sets ({path: ...}), got %s", kindOf(n))
	}
	for _, item := range seq.Values {
		ds := Dataset{Type: "auto"}
		if text, ok := scalar(item); ok {
			ds.Path = text
		} else if m := d.mapping(item, k.Name+"[]"); m != nil {
			before := len(d.errs)
			decode(d, m, &ds, datasetKeys(), nil, datasetIgnored())
			d.within(before, fmt.Sprintf("%s[%d]", k.Name, len(*p)))
		}
		*p = append(*p, ds)
	}
	return pathsGiven(*p)
}

func pathsGiven(sets []Dataset) string {
	for i, ds := range sets {
		if ds.Path == "" {
			return fmt.Sprintf("missing: data set %d has no path", i)
		}
	}
	return ""
}

// scalar is the text of a scalar node as it was written, without quotes.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// word is scalar that also reads null, for the keys where "nothing" is one of the words, and a list as its words with commas.
func word(n ast.Node) string {
	if _, null := n.(*ast.NullNode); null {
		return "null"
	}
	if seq, ok := n.(*ast.SequenceNode); ok {
		all := make([]string, len(seq.Values))
		for i, item := range seq.Values {
			all[i], _ = scalar(item)
		}
		return strings.Join(all, ",")
	}
	if text, ok := scalar(n); ok {
		return text
	}
	return "{}" // no word that means anything
}

func (v spelt) scalar() (string, bool) {
	if v.text != nil {
		return *v.text, true
	}
	return scalar(v.node)
}

// empty: a list with nothing in it.
func (v spelt) empty() bool {
	seq, ok := v.node.(*ast.SequenceNode)
	return ok && v.text == nil && len(seq.Values) == 0
}

// quoted: "16" is a string on purpose.
func (v spelt) quoted() bool {
	if v.text != nil {
		return false
	}
	t := v.node.GetToken()
	return strings.HasPrefix(t.Type.String(), "DoubleQuote") || strings.HasPrefix(t.Type.String(), "SingleQuote")
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		return "an anchor, alias or tag (not supported in jobs)"
	}
	return strconv.Quote(word(n))
}

func typeName(dst any) string {
	switch dst.(type) {
	case *int:
		return "a whole number"
	case *uint64:
		return "a whole number from 0"
	case *float64:
		return "a number"
	case *bool:
		return "true or false"
	case *Targets, *[]string:
		return "a list"
	case *map[string]int, *map[string]float64:
		return "a mapping"
	case *[]Dataset:
		return "a list of mappings"
	}
	return "a string"
}

func oneOf(words []string) string {
	list := quoteList(words)
	if !strings.Contains(list, ",") {
		return list
	}
	return "one of " + list
}
