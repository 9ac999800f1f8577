package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	trained "lorad/internal/bpe"
)

// preTokenizer splits stretches of text further; merges never cross what it separates. first says that the first stretch begins
// the whole text. Empty stretches do not appear, neither in nor out.
type preTokenizer func(parts []string, first bool) []string

func parsePreTokenizer(raw json.RawMessage) (preTokenizer, error) {
	kind, err := componentType(raw, "pre_tokenizer")
	if kind == "" || err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		return parsePreTokenizers(raw)
	case "ByteLevel":
		return parseByteLevel(raw)
	case "Split":
		return parseSplit(raw)
	case "Digits":
		return parseDigits(raw)
	case "Metaspace":
		m, err := parseMetaspace(raw)
		return m.preTokenize, err
	}
	return nil, unsupported("pre_tokenizer", kind, "Sequence, ByteLevel, Split, Digits, Metaspace")
}

func parsePreTokenizers(raw json.RawMessage) (preTokenizer, error) {
	var c struct {
		Type          string
		Pretokenizers []json.RawMessage
	}
	if err := strict(raw, "Sequence", &c); err != nil {
		return nil, err
	}
	var all []preTokenizer
	for i, r := range c.Pretokenizers {
		p, err := parsePreTokenizer(r)
		if err != nil {
			return nil, err
		}
		if m, err := parseMetaspace(r); i > 0 && err == nil && m.scheme == "first" {
			return nil, fmt.Errorf("pre_tokenizer Sequence: Metaspace with prepend_scheme first is supported in the first place only")
		}
		if p != nil {
			all = append(all, p)
		}
	}
	return func(parts []string, first bool) []string {
		for _, p := range all {
			parts = p(parts, first)
		}
		return parts
	}, nil
}

// splitWith applies a pattern and a behaviour to each part.
func splitWith(p pattern, behave behaviour) preTokenizer {
	return func(parts []string, _ bool) []string {
		var out []string
		for _, s := range parts {
			for _, m := range behave(p(s)) {
				if m.start < m.end {
					out = append(out, s[m.start:m.end])
				}
			}
		}
		return out
	}
}

// behaviour says what becomes of the matches: the stretches that come out are the parts.
type behaviour func([]stretch) []stretch

func parseBehaviour(name string) (behaviour, error) {
	switch name {
	case "Isolated":
		return func(in []stretch) []stretch { return in }, nil
	case "Removed":
		return removed, nil
	case "Contiguous":
		return contiguous, nil
	case "MergedWithPrevious":
		return mergedWithPrevious, nil
	case "MergedWithNext":
		return mergedWithNext, nil
	}
	return nil, unsupported("Split behavior", name, "Isolated, Removed, Contiguous, MergedWithPrevious, MergedWithNext")
}

func removed(in []stretch) []stretch {
	return slices.DeleteFunc(in, func(m stretch) bool { return m.match })
}

// contiguous joins neighbours that both match or both do not.
func contiguous(in []stretch) []stretch {
	var out []stretch
	for _, m := range in {
		if n := len(out); n > 0 && out[n-1].match == m.match {
			out[n-1].end = m.end
		} else {
			out = append(out, m)
		}
	}
	return out
}

// mergedWithPrevious joins a match to what is before it; of several matches in a row only the first.
func mergedWithPrevious(in []stretch) []stretch {
	var out []stretch
	previous := false
	for _, m := range in {
		if n := len(out); m.match && !previous && n > 0 {
			out[n-1].end = m.end
		} else {
			out = append(out, m)
		}
		previous = m.match
	}
	return out
}

// mergedWithNext joins a match to what follows it; of several matches in a row only the last.
func mergedWithNext(in []stretch) []stretch {
	var out []stretch
	for i, m := range in {
		if n := len(out); !m.match && i > 0 && in[i-1].match {
			out[n-1].end = m.end
		} else {
			out = append(out, m)
		}
	}
	return out
}

func parseSplit(raw json.RawMessage) (preTokenizer, error) {
	var c struct {
		Type     string
		Pattern  json.RawMessage
		Behavior string
		Invert   bool
	}
	if err := strict(raw, "Split", &c); err != nil {
		return nil, err
	}
	p, err := parsePattern(c.Pattern)
	if err != nil {
		return nil, err
	}
	behave, err := parseBehaviour(c.Behavior)
	if err != nil {
		return nil, err
	}
	if c.Invert {
		p = inverted(p)
	}
	return splitWith(p, behave), nil
}

func inverted(p pattern) pattern {
	return func(s string) []stretch {
		all := p(s)
		for i := range all {
			all[i].match = !all[i].match
		}
		return all
	}
}

func parseDigits(raw json.RawMessage) (preTokenizer, error) {
	var c struct {
		Type       string
		Individual bool `json:"individual_digits"`
	}
	if err := strict(raw, "Digits", &c); err != nil {
		return nil, err
	}
	behave := contiguous
	if c.Individual {
		behave = func(in []stretch) []stretch { return in }
	}
	return splitWith(characters(unicode.IsNumber), behave), nil
}

// byteLevel is the ByteLevel component in each of its three roles; trim_offsets concerns offsets, which lorad has none of.
type byteLevel struct {
	Type        string
	AddPrefix   bool  `json:"add_prefix_space"`
	TrimOffsets bool  `json:"trim_offsets"`
	UseRegex    *bool `json:"use_regex"`
}

// gpt2Pattern is GPT-2's expression (contractions; words, numbers and signs with the space before them; spaces) without the
// expression engine, which took nine tenths of the time of tokenising.
func gpt2Pattern(s string) []stretch {
	var out []stretch
	at := 0
	for part := range trained.Split(s) {
		out = append(out, stretch{at, at + len(part), true})
		at += len(part)
	}
	return out
}

func parseByteLevel(raw json.RawMessage) (preTokenizer, error) {
	var c byteLevel
	if err := strict(raw, "ByteLevel", &c); err != nil {
		return nil, err
	}
	split := func(parts []string, _ bool) []string { return parts }
	if c.UseRegex == nil || *c.UseRegex {
		split = splitWith(gpt2Pattern, func(in []stretch) []stretch { return in })
	}
	return func(parts []string, first bool) []string {
		if c.AddPrefix {
			for i, s := range parts {
				if !strings.HasPrefix(s, " ") {
					parts[i] = " " + s
				}
			}
		}
		parts = split(parts, first)
		for i, s := range parts {
			parts[i] = toVisible(s)
		}
		return parts
	}, nil
}

// metaspace writes spaces as a visible character, SentencePiece's way.
type metaspace struct {
	replacement string // one character
	scheme      string // "always", "first" or "never": where a space is put before the text
	split       bool   // begin a new part at each replacement
}

func parseMetaspace(raw json.RawMessage) (metaspace, error) {
	var c struct {
		Type        string
		Replacement string
		AddPrefix   *bool  `json:"add_prefix_space"` // before prepend_scheme there was only this
		Scheme      string `json:"prepend_scheme"`
		Split       *bool
		StrRep      string `json:"str_rep"`
	}
	if err := strict(raw, "Metaspace", &c); err != nil {
		return metaspace{}, err
	}
	m := metaspace{c.Replacement, c.Scheme, c.Split == nil || *c.Split}
	if m.scheme == "" {
		m.scheme = "always"
		if c.AddPrefix != nil && !*c.AddPrefix {
			m.scheme = "never"
		}
	}
	if c.Type != "Metaspace" || len([]rune(m.replacement)) != 1 {
		return m, fmt.Errorf("pre-tokenizer Metaspace: replacement %q is not one character", m.replacement)
	}
	if !slices.Contains([]string{"always", "first", "never"}, m.scheme) {
		return m, unsupported("Metaspace prepend_scheme", m.scheme, "always, first, never")
	}
	return m, nil
}

func (m metaspace) preTokenize(parts []string, first bool) []string {
	for i, s := range parts {
		s = strings.ReplaceAll(s, " ", m.replacement)
		if (m.scheme == "always" || m.scheme == "first" && first && i == 0) && !strings.HasPrefix(s, m.replacement) {
			s = m.replacement + s
		}
		parts[i] = s
	}
	if !m.split {
		return parts
	}
	return splitWith(literal(m.replacement), mergedWithNext)(parts, first)
}
