// Package model reads and writes Hugging Face model folders: config.json, generation_config.json, the tokenizer's files
// and safetensors weights, in one file or in shards.
//
// Only what is exactly Llama-shaped is accepted (RMSNorm, rotary positions, grouped-query attention, SwiGLU); every
// other architecture, activation or rotary variant is refused by name, because a model that loads and computes something
// slightly different is worse than one that does not load.
//
// Everything is read through fs.FS, so a folder on disk and the base model embedded in the binary take the same way in.
// Why not mmap: weights are widened to f32 on the way in, so a mapping would only save the read.
package model
