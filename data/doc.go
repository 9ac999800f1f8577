// Package data turns files (JSONL, CSV, TSV, Parquet) into training examples: token ids with shifted labels, a difficulty each, and one
// hash over everything that decides what a step sees.
//
// The way of a line: bytes -> Record (format found from its keys) -> formatted text with the parts to learn marked ->
// tokens and labels -> cut to length -> train or validation side. Everything is a pure function of (the bytes of the
// files in order, Options, tokenizer, chat template): every node builds the same Set, and Set.Hash proves it.
//
// # Formats
//
//	text        {"text": ...}                              all tokens are learnt
//	completion  {"prompt": ..., "completion": ...}         concatenated as they are; the completion is learnt
//	alpaca      {"instruction": ..., "input"?: ..., "output": ...}  in Alpaca's wording; the output is learnt
//	chat        {"messages": [{"role", "content"}]} or ShareGPT's {"conversations": [{"from", "value"}]}
//	            in the base's chat template, or PlainTemplate; every assistant turn is learnt
//	legal, medical, code, finance   a domain's columns in its wording (DomainWording); the completion is learnt
//	Source.Wording                  a wording of the user's own
//
// Options.TrainOnInputs learns the prompts as well.
//
// # What is learnt
//
// As in TRL, text is tokenised whole, and the prompt once more by itself: what the two token sequences have in common
// at the start is the prompt. Tokenising prompt and answer apart would put a token border where the model will not
// see one when it is used. The tokens that the tokenizer's post-processor puts in front (BOS) are put there once,
// also when a chat template has written them already. EOS follows the text, the completion, the output and, unless
// the template closes it in its own way, the last assistant turn; it is learnt, for a model that does not learn to
// stop does not stop.
//
// Labels are shifted already: Labels[i] is Tokens[i+1] when that token is learnt, and engine.Ignore otherwise. (Here
// lorad differs from Hugging Face's Trainer, which counts a learnt first token in the mean although nothing
// predicts it.)
//
// # Validation
//
// The validation side takes the examples with the smallest SHA-256 of (seed, tokens, labels). So it does not depend
// on the order of lines, hardly changes when lines are added, and equal examples are always on the same side: no
// validation example has a twin in the training set.
//
// # Several files
//
// Options.TaskPrefix writes "[TASK] " before the user's words, so that one adapter learns several tasks apart. Weights and MixTemperature say how
// often each file comes up in an epoch: see shares and repeated. The validation side is split off before, and is not mixed.
//
// Why not the clock: some chat templates write today's date. Two nodes at midnight would train on different tokens,
// so strftime_now is Options.Date, fixed per run.
package data
