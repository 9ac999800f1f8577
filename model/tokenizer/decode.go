package tokenizer

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder turns tokens into pieces of text; the pieces are joined at the end.
type decoder func([]string) []string

func parseDecoder(raw json.RawMessage) (decoder, error) {
	kind, err := componentType(raw, "decoder")
	if kind == "" || err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		return parseDecoders(raw)
	case "ByteLevel":
		return decodeByteLevel, strict(raw, kind, &byteLevel{})
	case "ByteFallback":
		return decodeByteFallback, strict(raw, kind, &bare{})
	case "Fuse":
		return func(in []string) []string { return []string{strings.Join(in, "")} }, strict(raw, kind, &bare{})
	case "Replace":
		replace, err := parseReplace(raw)
		return each(replace), err
	case "Strip":
		return parseStripDecoder(raw)
	case "Metaspace":
		m, err := parseMetaspace(raw)
		return m.decode, err
	}
	return nil, unsupported("decoder", kind, "Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace")
}

func parseDecoders(raw json.RawMessage) (decoder, error) {
	var c struct {
		Type     string
		Decoders []json.RawMessage
	}
	if err := strict(raw, "Sequence", &c); err != nil {
		return nil, err
	}
	var all []decoder
	for _, r := range c.Decoders {
		d, err := parseDecoder(r)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return func(in []string) []string {
		for _, d := range all {
			in = d(in)
		}
		return in
	}, nil
}

func each(f func(string) string) decoder {
	return func(in []string) []string {
		for i, s := range in {
			in[i] = f(s)
		}
		return in
	}
}

func decodeByteLevel(in []string) []string {
	var b []byte
	for _, s := range in {
		b = fromVisible(b, s)
	}
	return []string{lossy(b)}
}

// decodeByteFallback turns runs of <0x..> tokens into text. A run that is not UTF-8 becomes one U+FFFD per byte.
func decodeByteFallback(in []string) []string {
	var out []string
	var run []byte
	flush := func() {
		if utf8.Valid(run) {
			out = append(out, string(run))
		} else {
			out = append(out, strings.Repeat("\uFFFD", len(run)))
		}
		run = run[:0]
	}
	for _, s := range in {
		if b, ok := byteToken(s); ok {
			run = append(run, b)
			continue
		}
		if len(run) > 0 {
			flush()
		}
		out = append(out, s)
	}
	if len(run) > 0 {
		flush()
	}
	return out
}

func byteToken(s string) (byte, bool) {
	if len(s) != 6 || !strings.HasPrefix(s, "<0x") || s[5] != '>' {
		return 0, false
	}
	v, err := strconv.ParseUint(s[3:5], 16, 8)
	return byte(v), err == nil
}

func parseStripDecoder(raw json.RawMessage) (decoder, error) {
	var c struct {
		Type        string
		Content     string
		Start, Stop int
	}
	if err := strict(raw, "Strip", &c); err != nil {
		return nil, err
	}
	if len([]rune(c.Content)) != 1 || c.Start < 0 || c.Stop < 0 {
		return nil, fmt.Errorf("decoder Strip: content %q is not one character, or start %d or stop %d is negative", c.Content, c.Start, c.Stop)
	}
	return each(func(s string) string {
		for i := 0; i < c.Start && strings.HasPrefix(s, c.Content); i++ {
			s = s[len(c.Content):]
		}
		for i := 0; i < c.Stop && strings.HasSuffix(s, c.Content); i++ {
			s = s[:len(s)-len(c.Content)]
		}
		return s
	}), nil
}

// decode writes spaces again; those of the first token were put there by the pre-tokenizer.
func (m metaspace) decode(in []string) []string {
	for i, s := range in {
		space := " "
		if i == 0 && m.scheme != "never" {
			space = ""
		}
		in[i] = strings.ReplaceAll(s, m.replacement, space)
	}
	return in
}
