package step

// Event is something that happened.
type Event interface{ event() }

type (
	// Leased carries the newest lease of the run; the zero Lease means there is none.
	Leased struct{ Lease Lease }
	// StopWanted asks for a checkpoint and a pause at the next step boundary. It holds for the present generation: the
	// next one may be of the same run resumed, so the shell repeats it as long as the run is to stop.
	StopWanted struct{}
	// LeaveWanted asks to be in no generation after this one, from the next step boundary on. The shell repeats it as
	// long as it is so.
	LeaveWanted struct{}
	// Connected says that the ring of this generation stands.
	Connected struct{ Generation uint64 }
	// Synced carries what all members (by rank) declared; the replica has caught up with the furthest.
	Synced struct {
		Generation uint64
		Positions  []Position
	}
	// Computed says that the gradient of a micro-batch is in the accumulator.
	Computed struct{ Micro int }
	// Reduced says that the sum of the step is complete and verified: how many members voted to stop, how many to leave,
	// and how many microseconds each micro-batch took where it was computed (0 or missing: not known).
	Reduced struct {
		Votes, Leaves int64
		Took          []int64
	}
	// Applied says that the optimiser has made the step.
	Applied struct{ Done uint64 }
	// Evaluated says that the validation loss after the step is known, and whether the run ends with it.
	Evaluated struct {
		Done uint64
		Last bool
	}
	// Saved says that the checkpoint of the step is durable.
	Saved struct{ Done uint64 }
	// Closed says that the final output is written and reported.
	Closed struct{}
	// Unable says that this member cannot do the run's work (too little memory, say), though others may: it drops out.
	Unable struct{ Detail string }
	// RingLost says that the ring of this generation is dead, whatever the member is at. It answers nothing: a
	// collective that was in it fails by itself.
	RingLost struct {
		Generation      uint64
		Suspect, Detail string
	}
	// Failed says that the long action failed. Link: the ring is at fault and a new generation may help;
	// otherwise the run itself is broken.
	Failed struct {
		Link    bool
		Suspect string
		Detail  string
	}
)

func (Leased) event()      {}
func (StopWanted) event()  {}
func (LeaveWanted) event() {}
func (Connected) event()   {}
func (Synced) event()      {}
func (Computed) event()    {}
func (Reduced) event()     {}
func (Applied) event()     {}
func (Evaluated) event()   {}
func (Saved) event()       {}
func (Closed) event()      {}
func (Unable) event()      {}
func (RingLost) event()    {}
func (Failed) event()      {}

// Action is something to do. Long actions answer with one event (or Failed); the others answer nothing.
type Action interface{ action() }

type (
	// Connect builds the ring of the lease (long; cancellable).
	Connect struct{ Lease Lease }
	// Sync exchanges Mine with all members and copies the state of the furthest (long; cancellable).
	Sync struct {
		Generation uint64
		Mine       Position
	}
	// Compute adds the gradient of one micro-batch of step Done+1 (long). Next are the ones that come after it, if nothing changes.
	Compute struct {
		Done  uint64
		Micro int
		Next  []int
	}
	// Reduce sums the accumulators of step Done+1 (long; cancellable).
	Reduce struct {
		Generation, Done    uint64
		VoteStop, VoteLeave bool
	}
	// Apply makes step Done+1 with the reduced sum (long).
	Apply struct{ Done uint64 }
	// Evaluate takes the validation loss after Done steps, a collective to which this member brings Micros (long;
	// cancellable).
	Evaluate struct {
		Generation, Done uint64
		Micros           []int
	}
	// Save makes the checkpoint after Done steps durable (long).
	Save struct{ Done uint64 }
	// Finish writes the output (Paused: says it can be resumed) and ends the member's work (long).
	Finish struct{ Paused bool }
	// Cancel interrupts the running long action, which then answers Failed or its result; both are fine.
	Cancel struct{}
	// Discard empties the accumulator: its micro-batches belong to others now.
	Discard struct{}
	// Disconnect drops the ring, if any.
	Disconnect struct{}
	// ReportAborted asks the coordinator for a new generation.
	ReportAborted struct {
		Generation      uint64
		Suspect, Detail string
	}
	// ReportYielded asks the coordinator for the generation after this one, whose members all stand at a step boundary
	// because one of them leaves.
	ReportYielded struct{ Generation uint64 }
	// ReportUnable asks the coordinator for a generation without this member.
	ReportUnable struct {
		Generation uint64
		Detail     string
	}
	// ReportBroken tells the coordinator that the run cannot go on.
	ReportBroken struct{ Detail string }
)

func (Connect) action()       {}
func (Sync) action()          {}
func (Compute) action()       {}
func (Reduce) action()        {}
func (Apply) action()         {}
func (Evaluate) action()      {}
func (Save) action()          {}
func (Finish) action()        {}
func (Cancel) action()        {}
func (Discard) action()       {}
func (Disconnect) action()    {}
func (ReportAborted) action() {}
func (ReportYielded) action() {}
func (ReportUnable) action()  {}
func (ReportBroken) action()  {}
