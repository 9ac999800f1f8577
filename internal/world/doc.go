// Package world writes the text that the embedded base model is pretrained on, and the legal-domain data set
// that shows what LoRA changes.
//
// # Two generators, one set of names
//
// General writes documents of a small invented world: people and firms with fresh names, places with fixed facts,
// stories, dialogues, and many questions whose answer stands in the passage just read. The names are drawn anew for
// every document, so the only way to a low loss is to learn to copy a name from the context, and to pick the right
// one: "Who was the seller?" of a passage in the active, the passive, the converse or the cleft. That is the
// skill a LoRA adapter can redirect in a few hundred steps. It never uses a legal word (a test proves it).
//
// Legal writes court cases with the same names, and questions whose answer needs the legal reading: who is the
// plaintiff in "an action was brought against X by Y", who must pay when "the claim was dismissed with costs".
// The base knows the names and the question form but not these words, so it confuses the roles.
//
// # Prompt shape
//
// Legal records are {"prompt", "completion"} and not {"instruction", "input", "output"}: the prompt is
// "Case: ...\nQuestion: ...\nAnswer:", the form of the base's own questions ("Story: ...\nQuestion: ...").
// A model of one million parameters has never seen "### Instruction:", and learning that frame would take the steps
// that should go into the legal roles.
//
// # Determinism
//
// Every document is a pure function of (seed, index): each draws from its own counter-based stream, so a corpus
// can be cut, sampled or written in parallel without changing a byte. No maps are ranged over, nothing is
// read from the clock. math/rand is not used because its streams are not promised to stay the same.
package world
