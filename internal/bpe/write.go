package bpe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Files renders the tokenizer as the files of a Hugging Face folder, by name.
func (t Tokenizer) Files() (map[string][]byte, error) {
	tok, err := t.tokenizerJSON()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"tokenizer.json": tok}
	for name, v := range map[string]any{
		"tokenizer_config.json":   tokenizerConfig(),
		"special_tokens_map.json": map[string]string{"bos_token": BOS, "eos_token": EOS, "pad_token": Pad},
		"generation_config.json":  map[string]int{"bos_token_id": BOSID, "eos_token_id": EOSID, "pad_token_id": PadID},
	} {
		if files[name], err = indented(v); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
	}
	return files, nil
}

// Write writes the files into dir, which is made if it is missing.
func Write(dir string, t Tokenizer) error {
	files, err := t.Files()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

type object = map[string]any

// tokenizerJSON orders the vocabulary by id, which a Go map would not.
func (t Tokenizer) tokenizerJSON() ([]byte, error) {
	var vocab bytes.Buffer
	vocab.WriteByte('{')
	for id, token := range t.Vocab {
		if id > 0 {
			vocab.WriteByte(',')
		}
		key, err := plain(token)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&vocab, "%s:%d", key, id)
	}
	vocab.WriteByte('}')
	merges := make([][2]string, len(t.Merges))
	copy(merges, t.Merges)
	return indented(struct {
		Version       string   `json:"version"`
		Truncation    any      `json:"truncation"`
		Padding       any      `json:"padding"`
		AddedTokens   []object `json:"added_tokens"`
		Normalizer    any      `json:"normalizer"`
		PreTokenizer  object   `json:"pre_tokenizer"`
		PostProcessor object   `json:"post_processor"`
		Decoder       object   `json:"decoder"`
		Model         any      `json:"model"`
	}{
		Version: "1.0", AddedTokens: addedTokens(), PreTokenizer: byteLevel(), PostProcessor: template(), Decoder: byteLevel(),
		Model: struct {
			Type                    string          `json:"type"`
			Dropout                 any             `json:"dropout"`
			UnkToken                any             `json:"unk_token"`
			ContinuingSubwordPrefix any             `json:"continuing_subword_prefix"`
			EndOfWordSuffix         any             `json:"end_of_word_suffix"`
			FuseUnk                 bool            `json:"fuse_unk"`
			ByteFallback            bool            `json:"byte_fallback"`
			IgnoreMerges            bool            `json:"ignore_merges"`
			Vocab                   json.RawMessage `json:"vocab"`
			Merges                  [][2]string     `json:"merges"`
		}{Type: "BPE", Vocab: vocab.Bytes(), Merges: merges},
	})
}

func addedTokens() []object {
	out := make([]object, 0, 3)
	for id, s := range []string{Pad, BOS, EOS} {
		out = append(out, object{"id": id, "content": s, "single_word": false, "lstrip": false, "rstrip": false,
			"normalized": false, "special": true})
	}
	return out
}

func byteLevel() object {
	return object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
}

// template puts <s> in front; </s> is the trainer's affair.
func template() object {
	special := func(typeID int) object {
		return object{"SpecialToken": object{"id": BOS, "type_id": typeID}}
	}
	sequence := func(id string, typeID int) object {
		return object{"Sequence": object{"id": id, "type_id": typeID}}
	}
	return object{"type": "TemplateProcessing",
		"single":         []object{special(0), sequence("A", 0)},
		"pair":           []object{special(0), sequence("A", 0), special(1), sequence("B", 1)},
		"special_tokens": object{BOS: object{"id": BOS, "ids": []int{BOSID}, "tokens": []string{BOS}}}}
}

func tokenizerConfig() object {
	return object{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, "clean_up_tokenization_spaces": false,
		"bos_token": BOS, "eos_token": EOS, "pad_token": Pad, "add_bos_token": true, "add_eos_token": false}
}

func plain(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

func indented(v any) ([]byte, error) {
	compact, err := plain(v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, compact, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
