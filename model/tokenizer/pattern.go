package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// stretch is a part of a text that a pattern matches, or the part between two matches.
type stretch struct {
	start, end int // bytes
	match      bool
}

// pattern cuts a text that is not empty into stretches that cover it.
type pattern func(string) []stretch

// parsePattern reads {"String": literal} or {"Regex": expression}.
func parsePattern(raw json.RawMessage) (pattern, error) {
	var p struct{ String, Regex *string }
	if err := strict(raw, "pattern", &p); err != nil {
		return nil, err
	}
	switch {
	case p.String != nil && p.Regex == nil && *p.String != "":
		return literal(*p.String), nil
	case p.Regex != nil && p.String == nil:
		return compile(*p.Regex)
	}
	return nil, fmt.Errorf("pattern %s: want one of String (not empty) and Regex", raw)
}

func literal(lit string) pattern {
	return func(s string) []stretch {
		var out []stretch
		at := 0
		for at < len(s) {
			i := strings.Index(s[at:], lit)
			if i < 0 {
				return append(out, stretch{at, len(s), false})
			}
			if i > 0 {
				out = append(out, stretch{at, at + i, false})
			}
			out = append(out, stretch{at + i, at + i + len(lit), true})
			at += i + len(lit)
		}
		return out
	}
}

// characters makes every character with a property a match of its own.
func characters(is func(rune) bool) pattern {
	return func(s string) []stretch {
		var out []stretch
		done := 0
		for i, r := range s {
			if !is(r) {
				continue
			}
			if done < i {
				out = append(out, stretch{done, i, false})
			}
			done = i + utf8.RuneLen(r)
			out = append(out, stretch{i, done, true})
		}
		if done < len(s) {
			out = append(out, stretch{done, len(s), false})
		}
		return out
	}
}

// regexTimeout stops an expression that backtracks without end. The expressions in use are linear; one that is not fails loudly.
const regexTimeout = time.Minute

// compile makes a pattern of an Oniguruma expression. Go's regexp has no look-ahead, which every GPT-2 descendant uses.
func compile(expr string) (pattern, error) {
	translated, err := translate(expr)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", expr, err)
	}
	re, err := regexp2.Compile(translated, regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q is not supported: %w", expr, err)
	}
	re.MatchTimeout = regexTimeout
	return func(s string) []stretch { return matches(re, s) }, nil
}

// matches runs over the text once; regexp2 counts in characters, so byte offsets are counted along.
func matches(re *regexp2.Regexp, s string) []stretch {
	var out []stretch
	text := []rune(s)
	char, at, done := 0, 0, 0
	advance := func(to int) int {
		for ; char < to; char++ {
			at += utf8.RuneLen(text[char])
		}
		return at
	}
	m, err := re.FindRunesMatch(text)
	for ; m != nil; m, err = re.FindNextMatch(m) {
		start := advance(m.Index)
		end := advance(m.Index + m.Length)
		if done < start {
			out = append(out, stretch{done, start, false})
		}
		out = append(out, stretch{start, end, true})
		done = end
	}
	if err != nil { // only the timeout; there is no right answer to go on with
		panic(fmt.Sprintf("tokenizer: regular expression %q: %v", re, err))
	}
	if done < len(s) {
		out = append(out, stretch{done, len(s), false})
	}
	return out
}

// translate rewrites the few things that Oniguruma and .NET expressions spell alike and mean differently, and refuses the others.
func translate(expr string) (string, error) {
	t := translator{in: []rune(expr)}
	for t.at < len(t.in) {
		if err := t.step(); err != nil {
			return "", err
		}
	}
	return t.out.String(), nil
}

type translator struct {
	in    []rune
	at    int
	out   strings.Builder
	fold  []bool // per open group: does case count?
	class bool   // inside [...]
}

func (t *translator) rest() string { return string(t.in[t.at:]) }

func (t *translator) copy(n int) {
	t.out.WriteString(string(t.in[t.at : t.at+n]))
	t.at += n
}

func (t *translator) folding() bool { return len(t.fold) > 0 && t.fold[len(t.fold)-1] }

func (t *translator) step() error {
	c := t.in[t.at]
	switch {
	case c == '\\':
		return t.escape()
	case t.class:
		return t.inClass(c)
	case c == '[':
		t.class = true
		t.copy(1)
		for t.at < len(t.in) && (t.in[t.at] == '^' || t.in[t.at] == ']') {
			t.copy(1)
		}
		return nil
	case c == '(':
		return t.group()
	case c == ')' && len(t.fold) > 0:
		t.fold = t.fold[:len(t.fold)-1]
	case c == '^' || c == '$':
		return fmt.Errorf("the anchor %q is not supported", c)
	case strings.HasPrefix(t.rest(), "{,"):
		return fmt.Errorf("a repetition without a lower bound is not supported")
	case t.folding() && unicode.IsLetter(c):
		return t.foldedLetter(c)
	}
	t.copy(1)
	return nil
}

// escape allows the classes both engines define alike over Unicode, and escaped punctuation.
func (t *translator) escape() error {
	if t.at+1 >= len(t.in) {
		return fmt.Errorf("it ends in a backslash")
	}
	c := t.in[t.at+1]
	switch {
	case strings.ContainsRune("sSdDrntfv", c), c < 128 && !unicode.IsLetter(c) && !unicode.IsDigit(c):
		t.copy(2)
		return nil
	case c == 'p' || c == 'P':
		end := strings.IndexByte(t.rest(), '}')
		if strings.HasPrefix(t.rest()[2:], "{") && end > 3 && t.rest()[3] != '^' {
			t.copy(end + 1)
			return nil
		}
	}
	return fmt.Errorf("the escape \\%c is not supported", c)
}

func (t *translator) inClass(c rune) error {
	switch {
	case c == ']':
		t.class = false
	case c == '[':
		return fmt.Errorf("a set inside a set is not supported")
	case strings.HasPrefix(t.rest(), "&&"):
		return fmt.Errorf("the intersection of sets is not supported")
	case t.folding() && unicode.IsLetter(c):
		return fmt.Errorf("a set of letters that ignores case is not supported")
	}
	t.copy(1)
	return nil
}

func (t *translator) group() error {
	fold := t.folding()
	for _, head := range []string{"(?:", "(?i:", "(?!", "(?=", "(?<!", "(?<=", "(?>", "("} {
		if !strings.HasPrefix(t.rest(), head) {
			continue
		}
		if head == "(" && strings.HasPrefix(t.rest(), "(?") {
			break
		}
		t.fold = append(t.fold, fold || head == "(?i:")
		t.copy(len(head))
		return nil
	}
	return fmt.Errorf("the group %.4q is not supported", t.rest())
}

// foldedLetter writes a letter whose case does not count. Oniguruma folds all of Unicode: the long s is an s, the Kelvin sign a k.
func (t *translator) foldedLetter(c rune) error {
	if t.at+1 < len(t.in) {
		switch two := strings.ToLower(string(t.in[t.at : t.at+2])); two {
		case "ss", "ff", "fi", "fl", "st": // each also folds to one ligature
			return fmt.Errorf("%q ignoring case is not supported", two)
		}
	}
	switch lower := unicode.ToLower(c); {
	case c >= 128 || lower == 'i':
		return fmt.Errorf("%q ignoring case is not supported", c)
	case lower == 's':
		t.out.WriteString("[s\u017f]")
	case lower == 'k':
		t.out.WriteString("[k\u212a]")
	default:
		t.out.WriteRune(c)
	}
	t.at++
	return nil
}
