package data

import (
	"regexp"
	"strings"
)

// Gonja parses "a if c else b" only as the whole of an output or of an assignment. Templates also write it inside of
// brackets: desugar turns those into ((c) and [a] or [b])[0], which evaluates as little as Jinja does. The text outside
// of {{ }} and {% %} stays as it is.
func desugar(source string) string {
	var out strings.Builder
	for {
		at := codeStart.FindStringIndex(source)
		if at == nil {
			return out.String() + source
		}
		n := codeLen(source[at[0]:])
		out.WriteString(source[:at[0]])
		out.WriteString(desugarCode(source[at[0] : at[0]+n]))
		source = source[at[0]+n:]
	}
}

var codeStart = regexp.MustCompile(`\{[{%#]`)

// codeLen is the length of the comment, output or statement that s starts with, its braces included.
func codeLen(s string) int {
	end := map[byte]string{'{': "}}", '%': "%}", '#': "#}"}[s[1]]
	depth := 0
	for i := 2; i < len(s); i++ {
		switch {
		case s[1] != '#' && (s[i] == '"' || s[i] == '\''):
			i += quoted(s[i:]) - 1
		case depth == 0 && strings.HasPrefix(s[i:], end):
			return i + len(end)
		case s[i] == '{':
			depth++
		case s[i] == '}' && depth > 0:
			depth--
		}
	}
	return len(s)
}

// quoted is the length of the string literal that s starts with.
func quoted(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			return i + 1
		}
	}
	return len(s)
}

func desugarCode(code string) string {
	if code[1] == '#' {
		return code
	}
	return code[:2] + desugarGroups(code[2:])
}

// desugarGroups desugars what is in brackets; s itself is not one expression.
func desugarGroups(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); {
		n := 1
		switch s[i] {
		case '"', '\'':
			n = quoted(s[i:])
		case '(', '[', '{':
			n = group(s[i:])
			out.WriteByte(s[i])
			out.WriteString(desugarItems(s[i+1 : max(i+1, i+n-1)]))
			out.WriteString(s[max(i+1, i+n-1) : i+n])
			i += n
			continue
		}
		out.WriteString(s[i : i+n])
		i += n
	}
	return out.String()
}

// group is the length of the bracketed text that s starts with.
func group(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"', '\'':
			i += quoted(s[i:]) - 1
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// desugarItems desugars a list of expressions between commas.
func desugarItems(s string) string {
	items := cut(s, func(rest string) int {
		if rest[0] == ',' {
			return 1
		}
		return 0
	}, -1)
	for i, item := range items {
		items[i] = desugarItem(item)
	}
	return strings.Join(items, ",")
}

var keyword = regexp.MustCompile(`^[A-Za-z_]\w*\s*=[^=]`)

// desugarItem desugars one expression, which may be an argument with a name.
func desugarItem(s string) string {
	name := ""
	if m := keyword.FindString(strings.TrimLeft(s, " \t\n")); m != "" {
		at := strings.Index(s, "=") + 1
		name, s = s[:at], s[at:]
	}
	parts := cut(s, word("if"), 2)
	if len(parts) == 1 {
		return name + desugarGroups(s)
	}
	branches := append(cut(parts[1], word("else"), 2), `""`)
	return name + " ((" + desugarGroups(branches[0]) + ") and [" + desugarGroups(parts[0]) + "] or [" + desugarItem(branches[1]) + "])[0] "
}

// word matches a whole word, given the text from a place where one may start.
func word(w string) func(string) int {
	whole := regexp.MustCompile(`^` + w + `\b`)
	return func(rest string) int { return len(whole.FindString(rest)) }
}

// cut splits s, into at most limit parts (-1: any number), where sep matches outside of brackets and strings.
func cut(s string, sep func(rest string) int, limit int) []string {
	var parts []string
	from, inWord := 0, false
	for i := 0; i < len(s); {
		n := 1
		switch c := s[i]; {
		case c == '"' || c == '\'':
			n, inWord = quoted(s[i:]), false
		case c == '(' || c == '[' || c == '{':
			n, inWord = group(s[i:]), false
		default:
			if k := sep(s[i:]); k > 0 && !inWord && len(parts)+1 != limit {
				parts = append(parts, s[from:i])
				from, n = i+k, k
			}
			inWord = c == '_' || c == '.' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
		}
		i += n
	}
	return append(parts, s[from:])
}
