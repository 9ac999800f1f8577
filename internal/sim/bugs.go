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
)

// Bugs are all of them.
var Bugs = []Bug{StaleAccumulator, KeepDiscarded, PartialSum, RotatesTooMuch, LateEnd, NoRecords}
