package tokenizer

import (
	"encoding/json"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// normalizer rewrites a stretch of text before it is split. It is never given "".
type normalizer func(string) string

func parseNormalizer(raw json.RawMessage) (normalizer, error) {
	kind, err := componentType(raw, "normalizer")
	if kind == "" || err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		return parseNormalizers(raw)
	case "Prepend":
		var c struct{ Type, Prepend string }
		err := strict(raw, kind, &c)
		return func(s string) string { return c.Prepend + s }, err
	case "Replace":
		return parseReplace(raw)
	case "NFC":
		return norm.NFC.String, strict(raw, kind, &bare{})
	case "NFD":
		return norm.NFD.String, strict(raw, kind, &bare{})
	case "NFKC":
		return norm.NFKC.String, strict(raw, kind, &bare{})
	case "NFKD":
		return norm.NFKD.String, strict(raw, kind, &bare{})
	case "Lowercase":
		return lowercase, strict(raw, kind, &bare{})
	case "Strip":
		return parseStrip(raw)
	}
	return nil, unsupported("normalizer", kind, "Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip")
}

func parseNormalizers(raw json.RawMessage) (normalizer, error) {
	var c struct {
		Type        string
		Normalizers []json.RawMessage
	}
	if err := strict(raw, "Sequence", &c); err != nil {
		return nil, err
	}
	var all []normalizer
	for _, r := range c.Normalizers {
		n, err := parseNormalizer(r)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return func(s string) string {
		for _, n := range all {
			if s != "" {
				s = n(s)
			}
		}
		return s
	}, nil
}

func parseReplace(raw json.RawMessage) (normalizer, error) {
	var c struct {
		Type    string
		Pattern json.RawMessage
		Content string
	}
	if err := strict(raw, "Replace", &c); err != nil {
		return nil, err
	}
	p, err := parsePattern(c.Pattern)
	if err != nil {
		return nil, err
	}
	var lit struct{ String string }
	if err := json.Unmarshal(c.Pattern, &lit); err == nil && lit.String != "" {
		return func(s string) string { return strings.ReplaceAll(s, lit.String, c.Content) }, nil
	}
	return func(s string) string { return replaceAll(s, p, c.Content) }, nil
}

func replaceAll(s string, p pattern, content string) string {
	var b strings.Builder
	for _, m := range p(s) {
		if m.match {
			b.WriteString(content)
		} else {
			b.WriteString(s[m.start:m.end])
		}
	}
	return b.String()
}

func parseStrip(raw json.RawMessage) (normalizer, error) {
	var c struct {
		Type  string
		Left  bool `json:"strip_left"`
		Right bool `json:"strip_right"`
	}
	err := strict(raw, "Strip", &c)
	return func(s string) string {
		if c.Left {
			s = strings.TrimLeftFunc(s, unicode.IsSpace)
		}
		if c.Right {
			s = strings.TrimRightFunc(s, unicode.IsSpace)
		}
		return s
	}, err
}

// lowercase maps character by character, without the rule for a final sigma. The full mapping differs from Go's simple one in a
// single place, the capital I with a dot.
func lowercase(s string) string {
	return strings.ReplaceAll(strings.Map(func(r rune) rune {
		if r == '\u0130' {
			return r
		}
		return unicode.ToLower(r)
	}, s), "\u0130", "i\u0307")
}
