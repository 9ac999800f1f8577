// Package export takes an adapter out of training: checks it against its base, and folds it in.
//
// Merge computes W' = W + scale*B*A in float32 and rounds once, to the type that the base is stored in (PEFT rounds the change first and adds it
// in that type). It holds one tensor at a time, so that a model larger than memory can be merged. A tied model stays right: an adapter on
// lm_head would change the embedding too, so the head is written as a weight of its own and the tie is undone.
//
// What 16 bits cannot hold is measured, not guessed: Report.Rounding is the part of the adapter's change that rounding took. An
// adapter that was trained on a base in NF4 has learnt to correct that base; on the 16-bit weights it sits a little beside. Report.Quantised is how far.
//
// Provenance (lorad.json beside the adapter) says which weights an adapter was trained on and how; PEFT does not mind the file.
//
// Why not through the engine: it holds the base as its products want it, which is not what was stored.
package export
