package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// file is tokenizer.json. Truncation and padding are left alone: what a text becomes does not depend on them, and transformers
// overrides them too.
type file struct {
	Version       string
	Truncation    json.RawMessage
	Padding       json.RawMessage
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// fileModel is the model part of tokenizer.json.
type fileModel struct {
	Type         string
	Dropout      *float64
	UnkToken     *string `json:"unk_token"`
	Prefix       *string `json:"continuing_subword_prefix"`
	Suffix       *string `json:"end_of_word_suffix"`
	FuseUnk      bool    `json:"fuse_unk"`
	ByteFallback bool    `json:"byte_fallback"`
	IgnoreMerges bool    `json:"ignore_merges"`
	Vocab        map[string]int32
	Merges       mergeList
}

// bare is a component without options.
type bare struct{ Type string }

// Load reads a tokenizer.json, and from tokenizer_config.json (or special_tokens_map.json; nil: none) which tokens begin, end and
// pad a text, and added tokens that only it lists. What is not supported is an error that names it.
func Load(tokenizerJSON, configJSON []byte) (*Tokenizer, error) {
	t := &Tokenizer{bos: -1, eos: -1, pad: -1}
	if err := t.load(tokenizerJSON); err != nil {
		return nil, fmt.Errorf("load tokenizer.json: %w", err)
	}
	if len(configJSON) > 0 {
		if err := t.configure(configJSON); err != nil {
			return nil, fmt.Errorf("load tokenizer_config.json: %w", err)
		}
	}
	if err := t.fillPieces(); err != nil {
		return nil, fmt.Errorf("load tokenizer.json: %w", err)
	}
	return t, nil
}

func (t *Tokenizer) load(data []byte) error {
	var f file
	if err := strict(data, "file", &f); err != nil {
		return err
	}
	if f.Version != "1.0" {
		return unsupported("version", f.Version, "1.0")
	}
	if err := t.model.parse(f.Model); err != nil {
		return fmt.Errorf("model: %w", err)
	}
	var err error
	if t.normalize, err = parseNormalizer(f.Normalizer); err != nil {
		return err
	}
	pre, err := parsePreTokenizer(f.PreTokenizer)
	if err != nil {
		return err
	}
	t.pre, t.model.byteLevel = pre.split, pre.spell
	if t.pre != nil && prependsFirst(f.PreTokenizer) && shiftsStart(f.Normalizer) {
		return errors.New("pre_tokenizer Metaspace with prepend_scheme first is not supported after a normalizer Replace or Strip")
	}
	if t.decoder, err = parseDecoder(f.Decoder); err != nil {
		return err
	}
	t.added.ids, t.added.special, t.added.pieces = map[string]int32{}, map[string]bool{}, map[int32]string{}
	for _, tok := range f.AddedTokens {
		if err := t.added.add(tok, t.model.vocab, t.normalize); err != nil {
			return err
		}
	}
	t.template, err = parsePostProcessor(f.PostProcessor)
	return err
}

// parse reads the vocabulary and the merges.
func (m *bpe) parse(raw json.RawMessage) error {
	var f fileModel
	kind, err := componentType(raw, "model")
	if err != nil {
		return err
	}
	if kind != "BPE" {
		return unsupported("model", kind, "BPE")
	}
	if err := strict(raw, kind, &f); err != nil {
		return err
	}
	switch {
	case f.Dropout != nil && *f.Dropout != 0:
		return fmt.Errorf("dropout %v is not supported", *f.Dropout)
	case f.Prefix != nil && *f.Prefix != "":
		return fmt.Errorf("continuing_subword_prefix %q is not supported", *f.Prefix)
	case f.Suffix != nil && *f.Suffix != "":
		return fmt.Errorf("end_of_word_suffix %q is not supported", *f.Suffix)
	case len(f.Vocab) == 0:
		return errors.New("vocab is empty")
	}
	m.vocab, m.unk = f.Vocab, -1
	m.byteFallback, m.ignoreMerges, m.fuseUnk = f.ByteFallback, f.IgnoreMerges, f.FuseUnk
	if f.UnkToken != nil {
		id, ok := m.vocab[*f.UnkToken]
		if !ok {
			return fmt.Errorf("unk_token %q is not in the vocabulary", *f.UnkToken)
		}
		m.unk = id
	}
	m.index()
	return m.rankMerges(f.Merges)
}

// mergeList is a list of pairs, written as [["a", "b"]] or, in older files, as ["a b"].
type mergeList [][]string

func (l *mergeList) UnmarshalJSON(raw []byte) error {
	var lines []string
	if first := bytes.TrimLeft(raw[1:], " \t\r\n"); len(first) == 0 || first[0] != '"' {
		return json.Unmarshal(raw, (*[][]string)(l))
	}
	if err := json.Unmarshal(raw, &lines); err != nil {
		return err
	}
	for _, line := range lines {
		*l = append(*l, strings.Split(line, " "))
	}
	return nil
}

// rankMerges numbers the merges: their order is their rank. A SentencePiece model comes without a pre-tokenizer, its words are whole
// texts; where no merge reaches over the beginning of a run of ▁, they can be cut there without changing an id.
func (m *bpe) rankMerges(list mergeList) error {
	m.merges = make(map[uint64]merge, len(list))
	_, spaced := m.vocab[metaspaceRune]
	m.cutSpaces = spaced && !m.ignoreMerges
	for rank, two := range list {
		if len(two) != 2 {
			return fmt.Errorf("merge %d: %q is not a pair", rank, two)
		}
		a, okA := m.vocab[two[0]]
		b, okB := m.vocab[two[1]]
		id, ok := m.vocab[two[0]+two[1]]
		if !okA || !okB || !ok {
			return fmt.Errorf("merge %d: %q, %q or what they make is not in the vocabulary", rank, two[0], two[1])
		}
		m.merges[pair(a, b)] = merge{int32(rank), id}
		m.cutSpaces = m.cutSpaces && !reachesOver(two[0]+two[1])
	}
	return nil
}

// parsePostProcessor reads which ids are put around a text. Offsets, which ByteLevel trims, do not exist here.
func parsePostProcessor(raw json.RawMessage) ([]int32, error) {
	kind, err := componentType(raw, "post_processor")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "":
		return []int32{sequence}, nil
	case "ByteLevel":
		return []int32{sequence}, strict(raw, kind, &byteLevel{})
	case "TemplateProcessing":
		return parseTemplate(raw)
	case "Sequence":
		var c struct {
			Type       string
			Processors []json.RawMessage
		}
		if err := strict(raw, kind, &c); err != nil {
			return nil, err
		}
		return parsePostProcessors(c.Processors)
	}
	return nil, unsupported("post_processor", kind, "Sequence, ByteLevel, TemplateProcessing")
}

// parsePostProcessors nests the templates: each wraps what the one before made.
func parsePostProcessors(raws []json.RawMessage) ([]int32, error) {
	all := []int32{sequence}
	for _, r := range raws {
		outer, err := parsePostProcessor(r)
		if err != nil {
			return nil, err
		}
		var wrapped []int32
		for _, id := range outer {
			if id == sequence {
				wrapped = append(wrapped, all...)
			} else {
				wrapped = append(wrapped, id)
			}
		}
		all = wrapped
	}
	return all, nil
}

// templatePart is one element of a template, exactly one of the two.
type templatePart struct {
	SpecialToken, Sequence *struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	}
}

func parseTemplate(raw json.RawMessage) ([]int32, error) {
	var c struct {
		Type          string
		Single        []templatePart
		Pair          json.RawMessage
		SpecialTokens map[string]struct {
			ID     string
			IDs    []int32
			Tokens []string
		} `json:"special_tokens"`
	}
	if err := strict(raw, "TemplateProcessing", &c); err != nil {
		return nil, err
	}
	var ids []int32
	for _, part := range c.Single {
		switch {
		case part.Sequence != nil && part.Sequence.ID == "A":
			ids = append(ids, sequence)
		case part.SpecialToken != nil:
			tok, ok := c.SpecialTokens[part.SpecialToken.ID]
			if !ok || slices.Min(append(tok.IDs, 0)) < 0 {
				return nil, fmt.Errorf("post_processor TemplateProcessing: special token %q has no ids", part.SpecialToken.ID)
			}
			ids = append(ids, tok.IDs...)
		default:
			return nil, errors.New("post_processor TemplateProcessing: single has a part that is neither a special token nor sequence A")
		}
	}
	return ids, nil
}

// configure reads the names of the special tokens. A name is a string or an object with its content.
func (t *Tokenizer) configure(data []byte) error {
	var c struct {
		BOS   json.RawMessage       `json:"bos_token"`
		EOS   json.RawMessage       `json:"eos_token"`
		Pad   json.RawMessage       `json:"pad_token"`
		Added map[string]addedToken `json:"added_tokens_decoder"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	if err := t.addConfigured(c.Added); err != nil {
		return err
	}
	for _, s := range []struct {
		key string
		raw json.RawMessage
		id  *int32
	}{{"bos_token", c.BOS, &t.bos}, {"eos_token", c.EOS, &t.eos}, {"pad_token", c.Pad, &t.pad}} {
		name, err := tokenName(s.raw)
		if err != nil {
			return fmt.Errorf("%s: %w", s.key, err)
		}
		if name == "" {
			continue
		}
		id, ok := t.ID(name)
		if !ok {
			return fmt.Errorf("%s: %q is not in the vocabulary", s.key, name)
		}
		*s.id = id
	}
	return nil
}

// addConfigured adds the tokens that only the configuration lists, in the order of their ids, as transformers does.
func (t *Tokenizer) addConfigured(added map[string]addedToken) error {
	byID := map[int]addedToken{}
	for key, tok := range added {
		id, err := strconv.Atoi(key)
		if err != nil || int(int32(id)) != id {
			return fmt.Errorf("added_tokens_decoder: %q is not an id", key)
		}
		tok.ID = int32(id)
		byID[id] = tok
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		if _, known := t.added.ids[byID[id].Content]; known {
			continue
		}
		if err := t.added.add(byID[id], t.model.vocab, t.normalize); err != nil {
			return fmt.Errorf("added_tokens_decoder: %w", err)
		}
	}
	return nil
}

func tokenName(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var tok addedToken
	if raw[0] == '"' {
		err := json.Unmarshal(raw, &tok.Content)
		return tok.Content, err
	}
	err := json.Unmarshal(raw, &tok)
	return tok.Content, err
}

// fillPieces makes the table from id to token. Ids must be dense enough that the table is not larger than what was read.
func (t *Tokenizer) fillPieces() error {
	n := len(t.model.vocab) + len(t.added.ids)
	limit := int32(min(4*n+1024, 1<<30))
	size := int32(0)
	for _, tokens := range []map[string]int32{t.model.vocab, t.added.ids} {
		for s, id := range tokens {
			if id < 0 || id >= limit {
				return fmt.Errorf("token %q has id %d, in a vocabulary of %d tokens", s, id, n)
			}
			size = max(size, id+1)
		}
	}
	t.pieces = make([]string, size)
	for s, id := range t.model.vocab {
		t.pieces[id] = s
	}
	for id, s := range t.added.pieces { // added tokens win
		t.pieces[id] = s
	}
	for _, id := range t.template {
		if id != sequence && id >= size {
			return fmt.Errorf("post_processor: id %d is outside the vocabulary of %d", id, size)
		}
	}
	return nil
}

// prependsFirst reports whether a pre-tokenizer asks where in the text it is.
func prependsFirst(pre json.RawMessage) bool {
	return strings.Contains(string(pre), `"first"`) && strings.Contains(string(pre), `"Metaspace"`)
}

// shiftsStart reports whether a normalizer can leave the beginning of the text at another place than 0 in the reference library's
// offsets. lorad keeps no offsets.
func shiftsStart(normalizer json.RawMessage) bool {
	return strings.Contains(string(normalizer), `"Replace"`) || strings.Contains(string(normalizer), `"Strip"`)
}

// componentType reads the type of a component, "" for null or absent.
func componentType(raw json.RawMessage, what string) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var c bare
	if err := json.Unmarshal(raw, &c); err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if c.Type == "" {
		return "", fmt.Errorf("%s: it has no type", what)
	}
	return c.Type, nil
}

// strict decodes a component and refuses options it does not know.
func strict(raw []byte, what string, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func unsupported(what, got, supported string) error {
	return fmt.Errorf("%s %q is not supported; supported: %s", what, got, supported)
}
