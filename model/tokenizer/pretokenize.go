package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	trained "lorad/internal/bpe"
)

// preTokenizer splits a stretch of text and emits the parts in order; merges never cross what it separates. first says that the
// stretch begins the whole text. Empty stretches do not appear, neither in nor out.
type preTokenizer func(text string, first bool, emit func(string))

// splitting is a pre-tokenizer, nil for one that splits nothing. spell says that the bytes of the parts are written as their
// stand-ins afterwards: that is left to the model, which has tables for it.
type splitting struct {
	split preTokenizer
	spell bool
}

func parsePreTokenizer(raw json.RawMessage) (splitting, error) {
	kind, err := componentType(raw, "pre_tokenizer")
	if kind == "" || err != nil {
		return splitting{}, err
	}
	switch kind {
	case "Sequence":
		return parsePreTokenizers(raw)
	case "ByteLevel":
		return parseByteLevel(raw)
	case "Split":
		p, err := parseSplit(raw)
		return splitting{split: p}, err
	case "Digits":
		p, err := parseDigits(raw)
		return splitting{split: p}, err
	case "Metaspace":
		m, err := parseMetaspace(raw)
		return splitting{split: m.preTokenize}, err
	}
	return splitting{}, unsupported("pre_tokenizer", kind, "Sequence, ByteLevel, Split, Digits, Metaspace")
}

func parsePreTokenizers(raw json.RawMessage) (splitting, error) {
	var c struct {
		Type          string
		Pretokenizers []json.RawMessage
	}
	if err := strict(raw, "Sequence", &c); err != nil {
		return splitting{}, err
	}
	var all splitting
	for i, r := range c.Pretokenizers {
		p, err := parsePreTokenizer(r)
		if err != nil {
			return splitting{}, err
		}
		if m, err := parseMetaspace(r); i > 0 && err == nil && m.scheme == "first" {
			return splitting{}, fmt.Errorf("pre_tokenizer Sequence: Metaspace with prepend_scheme first is supported in the first place only")
		}
		all = splitting{chain(all.spelt(), p.split), p.spell}
	}
	return all, nil
}

// spelt is a pre-tokenizer that writes the stand-ins itself, for whatever comes after it.
func (s splitting) spelt() preTokenizer {
	if !s.spell {
		return s.split
	}
	return chain(s.split, func(text string, _ bool, emit func(string)) { emit(toVisible(text)) })
}

// chain gives the parts of one pre-tokenizer to the next.
func chain(one, next preTokenizer) preTokenizer {
	if one == nil {
		return next
	}
	if next == nil {
		return one
	}
	return func(text string, first bool, emit func(string)) {
		one(text, first, func(part string) {
			next(part, first, emit)
			first = false
		})
	}
}

// splitWith applies a pattern and a behaviour.
func splitWith(p pattern, behave behaviour) preTokenizer {
	return func(text string, _ bool, emit func(string)) {
		for _, m := range behave(p(text)) {
			if m.start < m.end {
				emit(text[m.start:m.end])
			}
		}
	}
}

// scan splits with a scanner.
func scan(next scanner) preTokenizer {
	return func(text string, _ bool, emit func(string)) {
		for len(text) > 0 {
			n := next(text)
			emit(text[:n])
			text = text[n:]
		}
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

// splitOptions is the Split component.
type splitOptions struct {
	Type     string
	Pattern  json.RawMessage
	Behavior string
	Invert   bool
}

// scanner is the hand-written split that does the same, nil when there is none.
func (c splitOptions) scanner() scanner {
	var p struct{ Regex string }
	if c.Behavior != "Isolated" || c.Invert || json.Unmarshal(c.Pattern, &p) != nil {
		return nil
	}
	return knownScanner(p.Regex)
}

func parseSplit(raw json.RawMessage) (preTokenizer, error) {
	var c splitOptions
	if err := strict(raw, "Split", &c); err != nil {
		return nil, err
	}
	if known := c.scanner(); known != nil {
		return scan(known), nil
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

func parseByteLevel(raw json.RawMessage) (splitting, error) {
	var c byteLevel
	if err := strict(raw, "ByteLevel", &c); err != nil {
		return splitting{}, err
	}
	var split preTokenizer
	if c.UseRegex == nil || *c.UseRegex {
		split = scan(trained.Cut)
	}
	if c.AddPrefix {
		split = chain(prefixSpace, split)
	}
	return splitting{split, true}, nil
}

func prefixSpace(text string, _ bool, emit func(string)) {
	if !strings.HasPrefix(text, " ") {
		text = " " + text
	}
	emit(text)
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

func (m metaspace) preTokenize(text string, first bool, emit func(string)) {
	text = strings.ReplaceAll(text, " ", m.replacement)
	if (m.scheme == "always" || m.scheme == "first" && first) && !strings.HasPrefix(text, m.replacement) {
		text = m.replacement + text
	}
	if !m.split {
		emit(text)
		return
	}
	splitWith(literal(m.replacement), mergedWithNext)(text, first, emit)
}
