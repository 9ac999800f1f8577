package node

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"lorad/allreduce"
	"lorad/allreduce/tcp"
	"lorad/engine"
	"lorad/job"
	"lorad/node/recipe"
	"lorad/node/replica"
	"lorad/node/step"
	"lorad/node/tally"
	"lorad/proto"
)

// unitLog2 is the unit of a quantised gradient, 2^-40: see package allreduce for the error it costs. With reduce_wire: int16
// it is, where that is more, 2^-wireBits of what the optimiser has seen of the parameter: 4 times that and the sign are 16 bits.
const (
	unitLog2 = -40
	wireBits = 12
)

// Kinds of collectives in an allreduce.OpID.
const (
	kindSync = iota + 1
	kindGradient
	kindEvaluation
)

// worker does this node's part of one run.
type worker struct {
	node *Node
	id   string
	log  *slog.Logger
	dir  string // of checkpoints: output_dir where the run was submitted, below the state directory elsewhere

	mu      sync.Mutex
	latest  *proto.Run    // what the coordinator last said
	news    chan struct{} // latest has changed
	offered uint64        // generation in which this node said that it could join

	machine *step.Machine
	job     job.Job
	recipe  *recipe.Recipe
	trainer engine.Trainer
	lanes   *lanes // with more trainers than one
	limit   int64  // bytes, planned
	replica *replica.Replica
	ring    *allreduce.Group
	lease   step.Lease // of the ring

	tally    *tally.Tally
	sum      allreduce.Sum
	eval     *allreduce.Accum // losses of the validation set
	evalSum  allreduce.Sum
	grad     []float32
	units    []int8 // reduce_wire: int16
	labelled int    // in the global batch of the step at work

	attempt  *attempt
	lean     int               // times that the trainer was asked to do with less memory
	computed uint64            // gradients of micro-batches
	record   *proto.StepRecord // of the step at work
	began    time.Time
	reports  *reporter
	talking  sync.WaitGroup // goroutines that speak to the coordinator
}

func newWorker(n *Node, r *proto.Run) *worker {
	w := &worker{
		node:   n,
		id:     r.Spec.Run,
		log:    n.cfg.Log.With("run", r.Spec.Run),
		dir:    n.runDir(r.Spec),
		latest: r,
		news:   make(chan struct{}, 1),
		began:  time.Now(),
	}
	w.reports = newReporter(w)
	return w
}

// tell hands over what the coordinator says of the run now; only the newest word counts.
func (w *worker) tell(r *proto.Run) {
	w.mu.Lock()
	w.latest = r
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *worker) heard() *proto.Run {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

func (w *worker) currentReplica() *replica.Replica {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.replica
}

// run works until the member's part is over, the run is taken away or ctx ends, and returns the generation in which
// its work ended.
func (w *worker) run(ctx context.Context) uint64 {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer w.giveBack()
	if err := w.ready(ctx); err != nil {
		w.unprepared(ctx, err)
		return w.heard().GetLease().GetGeneration()
	}
	w.talking.Go(func() { w.reports.run(ctx) })
	w.drive(ctx)
	w.disconnect()
	w.attempt.end()
	w.log.Info("work on the run has ended here", "generation", w.finalGeneration(), "step", w.machine.Done(), "micro_batches", w.computed)
	cancel()
	w.talking.Wait()
	return w.finalGeneration()
}

// finalGeneration is that of the last ring, not of the last lease heard of: one that was granted while this member
// wrote its output is work to do, for which a new worker has to be there.
func (w *worker) finalGeneration() uint64 { return w.lease.Generation }

// unprepared says that a member cannot take part. At home that is the end: inputs and output are here. Elsewhere (no
// room, another build, a peer that went away) it is this node's trouble and not the run's: the others go on without.
func (w *worker) unprepared(ctx context.Context, cause error) {
	var unfit *unfitError
	r := w.heard()
	switch member := !outside(r, w.node.cfg.ID) && !terminal(r.Phase); {
	case errors.As(cause, &unfit):
		w.dropOut(ctx, step.ReportUnable{Generation: r.GetLease().GetGeneration(), Detail: cause.Error()})
		return
	case !member:
		return
	}
	if w.atHome() {
		w.broken(ctx, cause)
		return
	}
	if ctx.Err() == nil {
		w.log.Error("this node cannot take part in the run", "cause", cause)
		w.report(ctx, &proto.Report{Outcome: proto.Outcome_ABORTED, Suspect: w.node.cfg.ID, Detail: cause.Error()})
	}
}

// broken tells the coordinator that the run cannot go on here, unless this node is only being stopped.
func (w *worker) broken(ctx context.Context, cause error) {
	if ctx.Err() != nil {
		return
	}
	w.log.Error("run is broken", "cause", cause)
	w.report(ctx, &proto.Report{Outcome: proto.Outcome_BROKEN, Detail: cause.Error()})
}

// hear turns the coordinator's latest word into events.
func (w *worker) hear() []step.Action {
	r := w.heard()
	w.reports.setLead(r, w.node.cfg.ID)
	l := r.GetLease()
	out := w.machine.Handle(step.Leased{Lease: step.Lease{
		Generation: l.GetGeneration(),
		Members:    l.GetMembers(),
		Until:      l.GetUntil(),
	}})
	if r.Phase == proto.Phase_STOPPING { // a stop is of the generation that it comes in
		out = append(out, w.machine.Handle(step.StopWanted{})...)
	}
	if w.node.drains() {
		out = append(out, w.machine.Handle(step.LeaveWanted{})...)
	}
	return out
}

func terminal(p proto.Phase) bool {
	return p == proto.Phase_DONE || p == proto.Phase_FAILED || p == proto.Phase_STOPPED
}

func (w *worker) disconnect() {
	if w.ring != nil {
		w.ring.Close()
		w.ring = nil
	}
}

func (w *worker) aborted(ctx context.Context, a step.ReportAborted) {
	w.log.Warn("ring is broken; asking for a new generation", "generation", a.Generation, "suspect", w.node.name(a.Suspect), "detail", a.Detail)
	w.reports.flush()
	w.talking.Go(func() { // not waited for here: without a leader it takes as long as an election
		w.report(ctx, &proto.Report{
			Generation: a.Generation,
			Outcome:    proto.Outcome_ABORTED,
			Suspect:    a.Suspect,
			Detail:     a.Detail,
		})
	})
}

// report fills in who speaks of what, and sends.
func (w *worker) report(ctx context.Context, r *proto.Report) error {
	r.Run, r.Node = w.id, w.node.cfg.ID
	if r.Generation == 0 {
		r.Generation = w.heard().GetLease().GetGeneration()
	}
	err := w.node.cfg.Control.Report(ctx, r)
	if err != nil && ctx.Err() == nil {
		w.log.Warn("report was not taken", "outcome", r.Outcome, "err", err)
	}
	return err
}

// perform does one long action.
func (w *worker) perform(ctx context.Context, a step.Action) step.Event {
	var e step.Event
	var err error
	if _, computes := a.(step.Compute); !computes {
		w.lanes.settle()
	}
	switch a := a.(type) {
	case step.Connect:
		e, err = w.connect(ctx, a)
	case step.Sync:
		e, err = w.sync(ctx, a)
	case step.Compute:
		e, err = w.compute(a)
	case step.Reduce:
		e, err = w.reduce(ctx, a)
	case step.Apply:
		e = w.apply(a)
	case step.Evaluate:
		e, err = w.evaluate(ctx, a)
	case step.Save:
		e = w.save(a)
	case step.Finish:
		e, err = w.finish(ctx, a)
	default:
		panic(fmt.Sprintf("node: unknown action %T", a))
	}
	if err == nil {
		return e
	}
	var unfit *unfitError
	if errors.As(err, &unfit) {
		return step.Unable{Detail: err.Error()}
	}
	return failure(err)
}

// linkError is trouble between members: a new generation may help.
type linkError struct {
	suspect string
	err     error
}

func (e *linkError) Error() string { return e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

func failure(err error) step.Failed {
	f := step.Failed{Detail: err.Error()}
	var link *linkError
	var abort *allreduce.AbortError
	var unreached *tcp.ConnectError
	switch {
	case errors.As(err, &unreached):
		f.Link, f.Suspect = true, unreached.Member
	case errors.As(err, &link):
		f.Link, f.Suspect = true, link.suspect
	case errors.As(err, &abort):
		f.Link, f.Suspect = true, abort.Suspect
	}
	return f
}

func (w *worker) connect(ctx context.Context, a step.Connect) (step.Event, error) {
	l := a.Lease
	ring, err := w.node.cfg.Rings.Connect(ctx, w.id, l.Generation, l.Members, w.node.cfg.ID)
	if err != nil {
		return nil, &linkError{err: fmt.Errorf("connect generation %d: %w", l.Generation, err)}
	}
	w.ring, w.lease = ring, l
	return step.Connected{Generation: l.Generation}, nil
}

func (w *worker) op(kind uint32, done uint64) allreduce.OpID {
	h := fnv.New64a()
	h.Write([]byte(w.id))
	return allreduce.OpID{Run: h.Sum64(), Generation: w.lease.Generation, Step: done, Kind: kind}
}

func (w *worker) compute(a step.Compute) (step.Event, error) {
	start := time.Now()
	b := w.recipe.Micro(a.Done, a.Micro)
	err := w.gradientOf(a, func(g tally.Gradient) error {
		return w.tally.Add(a.Micro, g, int64(b.Labelled()), int64(len(b.Tokens)))
	})
	if err != nil {
		return nil, fmt.Errorf("step %d: micro-batch %d: %w", a.Done+1, a.Micro, err)
	}
	took := time.Since(start)
	w.tally.Accum.Took(a.Micro, took)
	w.record.ComputeUs += uint64(took.Microseconds())
	w.computed++
	return step.Computed{Micro: a.Micro}, nil
}

// gradientOf passes on that of the micro-batch of an action. With several engines it took as long as it was waited for.
func (w *worker) gradientOf(a step.Compute, add func(tally.Gradient) error) error {
	of := func(micro int) task {
		return task{w.recipe.Micro(a.Done, micro), 1 / float32(w.labelled), engine.Key{Seed: w.job.Seed, Step: uint32(a.Done), Micro: uint32(micro)}}
	}
	if w.lanes != nil {
		return w.lanes.gradient(append([]int{a.Micro}, a.Next...), of, add)
	}
	g, err := w.gradient(of(a.Micro))
	if err != nil {
		return err
	}
	return add(g)
}

func (w *worker) reduce(ctx context.Context, a step.Reduce) (step.Event, error) {
	start := time.Now()
	w.tally.Accum.Vote(a.VoteStop)
	w.tally.Accum.Leave(a.VoteLeave)
	_, err := w.tally.Reduce(ctx, w.ring, w.op(kindGradient, a.Done), &w.sum)
	var lost *tally.LostError
	if errors.As(err, &lost) {
		return nil, &unfitError{err}
	}
	if err != nil {
		return nil, err
	}
	if len(w.sum.Bad) > 0 && !w.replica.MaySkip() {
		return nil, fmt.Errorf("step %d: the gradient of micro-batch %v is not finite or too large; lower learning_rate, or look at the examples of that step", a.Done+1, w.sum.Bad)
	}
	w.record.ReduceUs = uint64(time.Since(start).Microseconds())
	return step.Reduced{Votes: w.sum.Votes, Leaves: w.sum.Leaves, Took: w.sum.Took}, nil
}

func (w *worker) apply(a step.Apply) step.Event {
	done := a.Done + 1
	now := time.Now()
	r := w.record
	r.Step, r.Generation = done, w.lease.Generation
	r.Loss = w.sum.Loss / float64(max(w.sum.Tokens, 1))
	w.advance(r)
	r.Tokens, r.TotalTokens = uint64(w.sum.Tokens), uint64(w.sum.Total)
	r.Epoch = w.recipe.Plan.Epoch(int(a.Done))
	r.DurationUs = uint64(now.Sub(w.began).Microseconds())
	r.Digest = w.replica.Digest()
	w.began = now
	w.reports.add(r, w.plan().EvalAfter(done))
	w.accumFor(done)
	return step.Applied{Done: done}
}

// advance has the replica take the sum, or pass over it. What is bad in it is a part of the sum: all members do the same.
func (w *worker) advance(r *proto.StepRecord) {
	if len(w.sum.Bad) == 0 {
		r.GradNorm, r.LearningRate = w.replica.Step(w.sum.Grad)
		return
	}
	r.LearningRate = w.replica.Skip()
	for _, micro := range w.sum.Bad {
		r.Bad = append(r.Bad, uint32(micro))
	}
	w.log.Warn("step skipped: its gradient is not finite or too large", "step", r.Step, "micro_batches", w.sum.Bad)
}
