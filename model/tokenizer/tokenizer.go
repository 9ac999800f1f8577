package tokenizer

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Tokenizer is a loaded tokenizer.json. It does not change after Load and is safe for concurrent use.
type Tokenizer struct {
	model     bpe
	added     addedTokens
	normalize normalizer   // nil: none
	pre       preTokenizer // nil: none
	template  []int32      // ids around a text; sequence stands for the text itself
	decoder   decoder      // nil: pieces are joined with spaces
	pieces    []string     // by id; "" where there is a hole
	bos, eos  int32
	pad       int32
	encoders  sync.Pool // of *encoder: buffers and words met before
}

// sequence marks the place of the text in a template.
const sequence = -1

// Encode turns text into ids. Added tokens are recognised inside the text, as the reference library does: text from users that
// must not be able to write control tokens has to be checked before. addSpecial adds what the post-processor adds, e.g. <s>.
// A run of bytes that is not UTF-8 counts as one U+FFFD.
func (t *Tokenizer) Encode(text string, addSpecial bool) []int32 {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	enc, ok := t.encoders.Get().(*encoder)
	if !ok {
		enc = newEncoder(&t.model)
	}
	enc.ids = make([]int32, 0, len(text)/3+len(t.template)+4)
	if !addSpecial {
		t.encode(enc, text)
	} else {
		t.encodeTemplate(enc, text)
	}
	ids := enc.ids
	enc.ids = nil
	t.encoders.Put(enc)
	return ids
}

// encodeTemplate encodes the text with what the post-processor puts around it.
func (t *Tokenizer) encodeTemplate(enc *encoder, text string) {
	at, done := 0, 0 // the text's ids, once it is encoded: a template may repeat it
	for _, id := range t.template {
		switch {
		case id != sequence:
			enc.ids = append(enc.ids, id)
		case done > 0:
			enc.ids = append(enc.ids, slices.Clone(enc.ids[at:done])...)
		default:
			at = len(enc.ids)
			t.encode(enc, text)
			done = len(enc.ids)
		}
	}
}

func (t *Tokenizer) encode(enc *encoder, text string) {
	for _, s := range t.added.raw.split(text) {
		if s.id >= 0 {
			enc.ids = append(enc.ids, s.id)
			continue
		}
		part := text[s.start:s.end]
		if t.normalize != nil {
			part = t.normalize(part)
		}
		t.encodeNormalized(enc, part, s.start == 0)
	}
}

// encodeNormalized encodes a stretch of normalized text; first says that it begins the whole text.
func (t *Tokenizer) encodeNormalized(enc *encoder, text string, first bool) {
	for _, s := range t.added.normalized.split(text) {
		switch part := text[s.start:s.end]; {
		case s.id >= 0:
			enc.ids = append(enc.ids, s.id)
		case t.pre != nil:
			t.pre(part, first && s.start == 0, enc.part)
		default:
			enc.part(part)
		}
	}
}

// Decode turns ids into text. skipSpecial leaves out special tokens; ids outside the vocabulary are left out always.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		if id < 0 || int(id) >= len(t.pieces) || t.pieces[id] == "" {
			continue
		}
		if skipSpecial && t.added.special[t.pieces[id]] {
			continue
		}
		tokens = append(tokens, t.pieces[id])
	}
	if t.decoder == nil {
		return strings.Join(tokens, " ")
	}
	return strings.Join(t.decoder(tokens), "")
}

// ID finds a token by its raw string ("</s>", "▁the", "Ġthe").
func (t *Tokenizer) ID(token string) (int32, bool) {
	if id, ok := t.added.ids[token]; ok {
		return id, true
	}
	id, ok := t.model.vocab[token]
	return id, ok
}

// Piece is the raw string of a token, "" for an id outside the vocabulary.
func (t *Tokenizer) Piece(id int32) string {
	if id < 0 || int(id) >= len(t.pieces) {
		return ""
	}
	return t.pieces[id]
}

// IsSpecial reports whether Decode with skipSpecial leaves the token out.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.added.special[t.Piece(id)] }

// VocabSize is one more than the largest id, added tokens included.
func (t *Tokenizer) VocabSize() int { return len(t.pieces) }

// BOS is the beginning-of-text token that tokenizer_config.json names, -1 when it names none.
func (t *Tokenizer) BOS() int32 { return t.bos }

// EOS is the end-of-text token that tokenizer_config.json names, -1 when it names none.
func (t *Tokenizer) EOS() int32 { return t.eos }

// Pad is the padding token that tokenizer_config.json names, -1 when it names none.
func (t *Tokenizer) Pad() int32 { return t.pad }
