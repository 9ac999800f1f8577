package sim

// Bug is a mutation of the simulated shell.
type Bug string

// Mutations of the shell. Each must be caught by an invariant; the later ones were the shell's own once.
const (
	StaleAccumulator Bug = "an accumulator is not always emptied after a step"
	KeepDiscarded    Bug = "an accumulator is kept although its micro-batches belong to others now"
	PartialSum       Bug = "a sum is applied that lacks a micro-batch"
	RotatesTooMuch   Bug = "old checkpoints are removed although the ledger is behind the newer ones"
	LateEnd          Bug = "a worker that ends counts as ended in generations that came later"
	NoRecords        Bug = "a state is copied without the records of its steps"
	ForgetsVerdict   Bug = "a state is copied without what the evaluations have shown"
	AcksUnsaved      Bug = "a checkpoint that a full disk did not take is acknowledged"
)

// Bugs are those that some thousand lives show.
var Bugs = []Bug{StaleAccumulator, PartialSum, RotatesTooMuch, NoRecords, ForgetsVerdict, AcksUnsaved}

// RareBugs take more lives than a test has time for, since nodes get ready before they join: a member that was left out
// seldom comes back within the step that it was in, and one that is not there in its generation is let in with the next.
// Tests of package node and node/step hold them directly.
var RareBugs = []Bug{KeepDiscarded, LateEnd}
