package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"lorad/proto"
)

const (
	reportEvery = 200 * time.Millisecond
	// reportLate: when the leading member has not reported a step for so long, every member does.
	reportLate = 3 * time.Second
	// drainTimeout is how long refusals of the last steps are borne with.
	drainTimeout = 20 * time.Second
	drainPause   = 5 * time.Millisecond
	reportMost   = 512 // records in one report
)

// reporter carries step records to the ledger in batches, off the hot path. The first member of the ring speaks for
// all; the others compare what they have with what the ledger says, and speak up only when it falls behind (a leading
// member that died may have taken its last records with it).
type reporter struct {
	w *worker

	mu         sync.Mutex
	pending    []*proto.StepRecord // in order; not yet seen in the ledger
	held       *proto.StepRecord   // the last one, while its evaluation is under way
	saved      []*proto.Checkpoint // in order; durable here, not yet reported
	generation uint64              // of the last record
	lead       bool
	member     bool      // of the newest lease: the others would be refused
	since      time.Time // of the oldest pending record
	wake       chan struct{}
	hurry      bool
	trouble    string // to be said, though the run goes on
}

func newReporter(w *worker) *reporter {
	return &reporter{w: w, wake: make(chan struct{}, 1)}
}

func (r *reporter) setLead(run *proto.Run, self string) {
	members := run.GetLease().GetMembers()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lead = len(members) > 0 && members[0] == self
	r.member = slices.Contains(members, self)
}

// add takes the record of a step that was made; with hold, once evaluated has been called.
func (r *reporter) add(s *proto.StepRecord, hold bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if hold {
		r.held = s
		return
	}
	r.push(s)
}

func (r *reporter) push(s *proto.StepRecord) {
	if len(r.pending) == 0 {
		r.since = time.Now()
	}
	r.pending = append(r.pending, s)
	r.w.appendLog(s)
	if s.Generation != r.generation { // somebody is waiting to see that it works
		r.generation = s.Generation
		r.wakeUp()
	}
}

// evaluated completes the record that is held, if it is that of step done.
func (r *reporter) evaluated(done uint64, loss float64, last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil || r.held.Step != done {
		return
	}
	r.held.EvalLoss, r.held.Last = loss, last
	r.push(r.held)
	r.held = nil
}

// unreported lists the records up to a step that are not known to be in the ledger.
func (r *reporter) unreported(upTo uint64) []*proto.StepRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.pending)
	if r.held != nil {
		all = append(all, r.held)
	}
	return slices.DeleteFunc(all, func(s *proto.StepRecord) bool { return s.Step > upTo })
}

// pendingSteps lists what could be reported now.
func (r *reporter) pendingSteps() []*proto.StepRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.pending[:min(len(r.pending), reportMost)])
}

// adopt takes over the records that came with the state of a peer. Whoever has the state of a step that is not in the
// ledger must be able to report it: the peer may die with its records, and the steps that follow would find a gap.
func (r *reporter) adopt(steps []*proto.StepRecord, evalAfter func(done uint64) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = nil // of a step that the peer has left behind; its record is among these, or in the ledger
	var last uint64
	if n := len(r.pending); n > 0 {
		last = r.pending[n-1].Step
	}
	for i, s := range steps {
		switch {
		case s.Step <= last:
		case i == len(steps)-1 && s.EvalLoss == 0 && evalAfter(s.Step):
			r.held = s
		default:
			r.push(s)
		}
	}
}

// durable takes a checkpoint that is on this node's disk. It is reported once the ledger has its step.
func (r *reporter) durable(c *proto.Checkpoint) {
	r.mu.Lock()
	r.saved = append(r.saved, c)
	r.mu.Unlock()
	r.wakeUp()
}

// flush has everything sent soon, whoever leads.
func (r *reporter) flush() {
	r.mu.Lock()
	r.hurry = true
	r.mu.Unlock()
	r.wakeUp()
}

func (r *reporter) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reporter) run(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.wake:
		}
		err := r.send(ctx, false)
		if err == nil {
			err = r.sendSaved(ctx)
		}
		if err == nil {
			err = r.sendTrouble(ctx)
		}
		if err != nil && ctx.Err() == nil {
			r.w.log.Debug("not everything is reported yet", "err", err)
		}
	}
}

// drain returns when every step and checkpoint up to the last is in the ledger. A refusal may pass (the generation has just changed);
// one that does not is the end of the run.
func (r *reporter) drain(ctx context.Context) error {
	for deadline := time.Now().Add(drainTimeout); ; {
		err := r.send(ctx, true)
		if err == nil {
			err = r.sendSaved(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && time.Now().After(deadline) {
			return err
		}
		if err != nil {
			time.Sleep(reportEvery)
			continue
		}
		r.mu.Lock()
		left := len(r.pending) + len(r.saved)
		r.mu.Unlock()
		if left == 0 {
			return nil
		}
		time.Sleep(drainPause)
	}
}

// send reports one batch, if it is this member's turn to, or force.
func (r *reporter) send(ctx context.Context, force bool) error {
	if err := r.settle(); err != nil {
		r.w.broken(ctx, err)
		return err
	}
	r.mu.Lock()
	due := len(r.pending) > 0 && r.member && (force || r.lead || r.hurry || time.Since(r.since) > reportLate)
	batch := append([]*proto.StepRecord(nil), r.pending[:min(len(r.pending), reportMost)]...)
	r.hurry = false
	r.mu.Unlock()
	if !due {
		return nil
	}
	if err := r.w.report(ctx, &proto.Report{Steps: batch}); err != nil {
		return err
	}
	r.drop(batch[len(batch)-1].Step)
	return nil
}

// sendSaved reports the checkpoints whose step is in the ledger.
func (r *reporter) sendSaved(ctx context.Context) error {
	for {
		r.mu.Lock()
		var next *proto.Checkpoint
		if len(r.saved) > 0 && r.saved[0].Step <= r.w.node.committed(r.w.id) {
			next = r.saved[0]
		}
		r.mu.Unlock()
		if next == nil {
			return nil
		}
		if err := r.w.report(ctx, &proto.Report{Checkpoint: next}); err != nil {
			return err
		}
		r.mu.Lock()
		if len(r.saved) > 0 && r.saved[0] == next { // drain and run may both be here
			r.saved = r.saved[1:]
		}
		r.mu.Unlock()
	}
}

// complain has the run say what is wrong on this node, though it goes on.
func (r *reporter) complain(detail string) {
	r.mu.Lock()
	r.trouble = detail
	r.mu.Unlock()
	r.wakeUp()
}

func (r *reporter) sendTrouble(ctx context.Context) error {
	r.mu.Lock()
	detail := r.trouble
	r.trouble = ""
	r.mu.Unlock()
	if detail == "" {
		return nil
	}
	return r.w.report(ctx, &proto.Report{Detail: detail})
}

// settle drops what the ledger has, after comparing it: two members that made different things of one step must not
// go on.
func (r *reporter) settle() error {
	r.mu.Lock()
	if len(r.pending) == 0 {
		r.mu.Unlock()
		return nil
	}
	first := r.pending[0].Step
	mine := make(map[uint64]uint64, len(r.pending))
	for _, s := range r.pending {
		mine[s.Step] = s.Digest
	}
	r.mu.Unlock()
	var last uint64
	for _, s := range r.w.node.cfg.Control.Ledger(r.w.id, first-1) {
		if d, ok := mine[s.Step]; ok && d != s.Digest {
			return fmt.Errorf("replicas differ after step %d: %s has %016x, the ledger %016x", s.Step, r.w.node.name(r.w.node.cfg.ID), d, s.Digest)
		}
		last = s.Step
	}
	r.drop(last)
	return nil
}

func (r *reporter) drop(upTo uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := 0
	for i < len(r.pending) && r.pending[i].Step <= upTo {
		i++
	}
	if i == 0 {
		return // what is pending is as old as it was
	}
	r.pending = r.pending[i:]
	r.since = time.Now()
}
