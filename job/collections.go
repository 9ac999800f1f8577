package job

import (
	"fmt"
	"maps"
	"slices"

	"github.com/dlclark/regexp2"
	"github.com/goccy/go-yaml/ast"
)

// stringList reads a list of names; a comma-separated string is one too. Order does not matter, so names are sorted.
func stringList(p *[]string, v spelt) string {
	var t Targets
	_, list := v.node.(*ast.SequenceNode)
	if text, ok := v.scalar(); !list && (!ok || !moduleNames.MatchString(text)) {
		return "wrong type: expected a list of module names"
	}
	if complaint := targets(&t, v); complaint != "" {
		return complaint
	}
	*p = t.Names
	return ""
}

// pairs reads a mapping of names to numbers.
func pairs[V int | float64](p *map[string]V, v spelt, what string) string {
	m, ok := v.node.(*ast.MappingNode)
	if !ok || v.text != nil {
		return fmt.Sprintf("wrong type: expected %s, got %s", what, kindOf(v.node))
	}
	for _, kv := range m.Values {
		name, named := keyName(kv.Key)
		text, ok := scalar(kv.Value)
		var value V
		if !named || !ok || !parseScalar(&value, text, spelt{node: kv.Value}) {
			return fmt.Sprintf("wrong type: expected %s, got %s: %s", what, name, kindOf(kv.Value))
		}
		if _, err := regexp2.Compile(name, regexp2.None); err != nil {
			return fmt.Sprintf("wrong type: %s is not a regular expression: %v", name, err)
		}
		if *p == nil {
			*p = map[string]V{}
		}
		(*p)[name] = value
	}
	return ""
}

func ranks(v any) string {
	for _, name := range slices.Sorted(maps.Keys(v.(map[string]int))) {
		if complaint := intIn(1, 4096)(v.(map[string]int)[name]); complaint != "" {
			return name + ": " + complaint
		}
	}
	return ""
}

func alphas(v any) string {
	for _, name := range slices.Sorted(maps.Keys(v.(map[string]float64))) {
		if complaint := positive(v.(map[string]float64)[name]); complaint != "" {
			return name + ": " + complaint
		}
	}
	return ""
}
