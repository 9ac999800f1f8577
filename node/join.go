package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lorad/proto"
)

// A node that is alive and has no part in a run that is under way gets ready by itself: it fetches the inputs from
// peers, checks that it makes the same examples of them, makes the trainer, and says so. Only then does the scheduler
// let it in, so that the members never wait for more than the copy of the state, which takes place while they compute.

const (
	joinLeast  = 4 // steps that have to be left: what the scheduler demands
	againAfter = 5 * time.Second
	againMost  = time.Minute
)

// volunteers says whether this node gets ready for a run that it has no part in yet.
func (n *Node) volunteers(r *proto.Run) bool {
	if n.unfit[r.Spec.Run] || !outside(r, n.cfg.ID) || r.Step+joinLeast > r.LastStep() || n.drains() {
		return false
	}
	if why := n.unlike(r); why != "" {
		n.once(r.Spec.Run, why)
		return false
	}
	return true
}

// outside says that the run is under way without this node.
func outside(r *proto.Run, id string) bool {
	return r.Phase == proto.Phase_RUNNING && r.Lease != nil && !slices.Contains(r.Lease.Members, id)
}

// unlike says in what this node differs from the members of a run so that it cannot take part, or nothing.
func (n *Node) unlike(r *proto.Run) string {
	var mine, theirs *proto.Node
	for _, p := range n.cfg.Control.Nodes() {
		if p.Id == n.cfg.ID {
			mine = p
		} else if slices.Contains(r.Lease.Members, p.Id) {
			theirs = p
		}
	}
	if mine == nil || theirs == nil || mine.Version == theirs.Version {
		return ""
	}
	return fmt.Sprintf("this node runs lorad %s and takes no part: the run is on lorad %s (%s), and other code may give other bits; install the same version", mine.Version, theirs.Version, theirs.Name)
}

// once says something about a run to whoever watches this node, and does not repeat it. The caller has the lock.
func (n *Node) once(run, what string) {
	if n.said[run] != what {
		n.said[run] = what
		n.cfg.Log.Error(what, "run", run)
	}
}

// ready prepares until it succeeds, for a node that has no part in the run yet: whatever is wrong (a peer that dies
// with half a file, no room, other examples of the same files) is this node's trouble and must not become the run's.
func (w *worker) ready(ctx context.Context) error {
	for pause := againAfter; ; pause = min(2*pause, againMost) {
		err := w.prepare(ctx)
		var unfit *unfitError
		if err == nil || ctx.Err() != nil || errors.As(err, &unfit) || !outside(w.heard(), w.node.cfg.ID) {
			return err
		}
		w.node.mu.Lock()
		w.node.once(w.id, fmt.Sprintf("this node takes no part in the run: %v", err))
		w.node.mu.Unlock()
		if err := w.pause(ctx, pause); err != nil {
			return err
		}
	}
}

// pause waits, but not for longer than the run does.
func (w *worker) pause(ctx context.Context, d time.Duration) error {
	late := time.After(d)
	for {
		select {
		case <-late:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-w.news:
			if r := w.heard(); terminal(r.Phase) {
				return fmt.Errorf("run %s is %s", w.id, r.Phase)
			} else if !outside(r, w.node.cfg.ID) {
				return nil
			}
		}
	}
}

// volunteer tells the scheduler, once a generation, that this node could join.
func (w *worker) volunteer(ctx context.Context, r *proto.Run) {
	generation := r.GetLease().GetGeneration()
	if !outside(r, w.node.cfg.ID) || w.offered == generation || w.node.drains() {
		return
	}
	w.offered = generation
	w.talking.Go(func() { w.report(ctx, &proto.Report{Generation: generation, Outcome: proto.Outcome_READY}) })
}
