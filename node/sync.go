package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"lorad/node/step"
	"lorad/proto"
)

// sync tells the others where this replica stands and copies the state of the furthest one.
func (w *worker) sync(ctx context.Context, a step.Sync) (step.Event, error) {
	mine := a.Mine
	mine.Digest = w.replica.Digest()
	blob, err := json.Marshal(mine)
	if err != nil {
		return nil, err
	}
	all, err := w.ring.AllGather(ctx, w.op(kindSync, 0), blob)
	if err != nil {
		return nil, err
	}
	positions := make([]step.Position, len(all))
	for i, b := range all {
		if err := json.Unmarshal(b, &positions[i]); err != nil {
			return nil, &linkError{w.lease.Members[i], fmt.Errorf("position of member %d: %w", i, err)}
		}
	}
	if err := w.catchUp(ctx, positions); err != nil {
		return nil, err
	}
	return step.Synced{Generation: a.Generation, Positions: positions}, nil
}

// catchUp refuses replicas that differ at the same step and copies the furthest one if this one is behind.
func (w *worker) catchUp(ctx context.Context, all []step.Position) error {
	top := 0
	for i, p := range all {
		if p.Done > all[top].Done {
			top = i
		}
	}
	for i, p := range all {
		if p.Done == all[top].Done && p.Digest != all[top].Digest {
			return fmt.Errorf("replicas differ at step %d: %s has %016x, %s has %016x; one of them computes wrongly (memory, overclocking) or runs another build",
				p.Done, w.node.name(w.lease.Members[top]), all[top].Digest, w.node.name(w.lease.Members[i]), p.Digest)
		}
	}
	if w.replica.Done() == all[top].Done {
		return nil
	}
	donor := w.lease.Members[donorFor(w.lease.Rank(w.node.cfg.ID), all)]
	if err := w.copyState(ctx, donor, all[top]); err != nil {
		return &linkError{donor, fmt.Errorf("copy state of step %d from %s: %w", all[top].Done, w.node.name(donor), err)}
	}
	return nil
}

// donorFor chooses who of the furthest members a member that is behind copies from: the last one for the first of those
// that are behind, and so on, so that many newcomers do not choke one donor, and the leading one last.
func donorFor(rank int, all []step.Position) int {
	top := slices.MaxFunc(all, func(a, b step.Position) int { return cmp.Compare(a.Done, b.Done) }).Done
	var donors []int
	behind := 0
	for i, p := range all {
		switch {
		case p.Done == top:
			donors = append(donors, i)
		case i < rank:
			behind++
		}
	}
	return donors[len(donors)-1-behind%len(donors)]
}

func (w *worker) copyState(ctx context.Context, donor string, at step.Position) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	peer, err := w.node.cfg.Peers.Peer(ctx, donor)
	if err != nil {
		return err
	}
	stream, err := peer.FetchState(ctx, &proto.FetchStateRequest{Run: w.id, Step: at.Done})
	if err != nil {
		return err
	}
	src := &chunkReader{recv: stream.Recv}
	records, err := readRecords(src)
	if err != nil {
		return err
	}
	if err := w.replica.Decode(src); err != nil {
		return err
	}
	w.reports.adopt(records, w.plan().EvalAfter)
	w.log.Info("copied the state of a peer", "step", at.Done, "from", w.node.name(donor))
	w.accumFor(at.Done)
	return nil
}

// accumFor makes the accumulator ready for the step after `done` steps.
func (w *worker) accumFor(done uint64) {
	w.record = &proto.StepRecord{}
	if done >= uint64(w.recipe.Plan.Steps()) {
		return
	}
	if w.units != nil {
		w.replica.Units(w.units, wireBits, unitLog2)
	}
	w.tally.Reset(w.recipe.Micros(done), w.units)
	w.labelled = w.recipe.Labelled(done)
}
