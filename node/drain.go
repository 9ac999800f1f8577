package node

import (
	"context"
	"slices"

	"lorad/node/step"
	"lorad/proto"
)

// drains says whether this node is to hand its work over.
func (n *Node) drains() bool { return n.draining(n.cfg.ID) }

func (n *Node) draining(id string) bool {
	for _, p := range n.cfg.Control.Nodes() {
		if p.Id == id {
			return p.Drain != nil
		}
	}
	return false
}

// Busy says whether a run that is under way is leased to this node.
func (n *Node) Busy() bool {
	for _, r := range n.cfg.Control.Runs() {
		if leased(r, n.cfg.ID) && !n.deserted(r) {
			return true
		}
	}
	return false
}

// deserted says that the members of a run stand between two steps and that no node is left that could go on: all that
// can be done for it here is done.
func (n *Node) deserted(r *proto.Run) bool {
	if r.Yielded == 0 || r.Yielded != r.Lease.Generation || !slices.Contains(r.YieldedBy, n.cfg.ID) {
		return false
	}
	for _, p := range n.cfg.Control.Nodes() {
		if p.Drain == nil && !p.Witness {
			return false
		}
	}
	return true
}

// HandOver returns when no run needs this node any more, which has to drain for that, or when ctx ends.
func (n *Node) HandOver(ctx context.Context) error {
	for {
		changed := n.cfg.Control.Changed()
		if !n.Busy() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// yielded tells the coordinator that this member stands between two steps, with the steps that are not in the ledger
// yet: the next generation begins after them.
func (w *worker) yielded(ctx context.Context, a step.ReportYielded) {
	w.log.Info("stands between two steps; a member leaves", "generation", a.Generation, "step", w.machine.Done())
	r := &proto.Report{Generation: a.Generation, Outcome: proto.Outcome_YIELDED, Steps: w.reports.pendingSteps()}
	w.talking.Go(func() {
		if w.report(ctx, r) != nil { // somebody else may have reported the steps, and more of them
			w.report(ctx, &proto.Report{Generation: a.Generation, Outcome: proto.Outcome_YIELDED})
		}
	})
}
