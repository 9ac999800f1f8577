// Package tokenizer turns text into token ids and back, exactly as the Hugging Face tokenizers library does with the same
// tokenizer.json: byte-level BPE (GPT-2, Llama-3, Qwen2) and SentencePiece-style BPE with byte fallback (Llama-2, TinyLlama).
//
// The text goes through added tokens, normalizer, pre-tokenizer, BPE merges and post-processor. A component or option
// that is not implemented is an error by name at load: a tokenizer that is nearly right trains a model that is quietly wrong.
package tokenizer
