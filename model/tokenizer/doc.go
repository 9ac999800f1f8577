// Package tokenizer turns text into token ids and back, exactly as the Hugging Face tokenizers library does with the same
// tokenizer.json: byte-level BPE (GPT-2, Llama-3, Qwen2) and SentencePiece-style BPE with byte fallback (Llama-2, TinyLlama).
//
// The text goes through added tokens, normalizer, pre-tokenizer, BPE merges and post-processor. A component or option
// that is not implemented is an error by name at load: a tokenizer that is nearly right trains a model that is quietly wrong.
//
// Speed comes from four things, none of which changes an id: the splits that most models share are scanners written by hand, other expressions
// go through an engine; texts without a split are cut before runs of ▁ where no merge reaches over; words met before are looked up; and
// byte-level spelling happens in a table, not in strings. Why not a cache of all words: texts have no end, and a table of a fixed size,
// a cache line per word, is faster than a map.
package tokenizer
