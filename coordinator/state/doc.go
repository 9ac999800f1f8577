// Package state is the replicated truth of a lorad cluster: who is in it, which runs there are, what was leased
// to whom and which steps are committed.
//
// Machine is a pure function of the commands applied to it. It reads no clock (Command.now_unix_ms is the
// leader's), draws nothing at random, starts no goroutine and does no I/O, so every replica that applies the same
// log holds the same bytes; Hash says so in one line.
//
// # Three fields, three writers
//
// Spec is what the user wants, Lease what the leader decided, ledger and checkpoints what members saw. A phase
// only moves along this graph:
//
//	PENDING --> RUNNING --> STOPPING --> STOPPED --> PENDING (resumed)
//	   |          |  |         |            FAILED --> PENDING (resumed)
//	   |          |  +---------+--> DONE
//	   +--> STOPPED, FAILED <--+
//
// # Refusals
//
// A command that cannot be applied gives an *Error and changes nothing. The refusal is a result like any other:
// every replica gives the same one, and the node that proposed the command hands it to its caller.
//
// # Reports
//
// A step is a pure function of the run, so every member of a lease reports the same numbers for it. The first
// report is recorded; every later one must agree in digest, loss and tokens, or the run fails naming both nodes:
// replicas that differ must never be averaged over. A report of an old generation may confirm or contradict what
// is known, and may tell of a checkpoint; it cannot add a step, because its sender was fenced off.
//
// # Memory
//
// Values are copied on write: a view handed out stays as it was, and costs no copy of the ledger. The ledger of a run
// at work takes about 200 bytes a step (176 for the record, 16 for the slice with its slack), 86 in a snapshot. When
// the run is DONE it is packed into an archive of 56 bytes a step under its SHA-256 (archive.go), bit for bit: the audit
// trail is never truncated. A thousand finished runs of 564 steps make a snapshot of 36 MB.
//
// # Why not otherwise
//
// One log of small facts instead of a key-value store: the rules (a token is used once, a gap is refused, replicas
// agree) are then enforced in one place, atomically, and not by every writer in turn.
package state
