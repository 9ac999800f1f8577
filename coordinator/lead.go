package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"lorad/coordinator/sched"
	"lorad/coordinator/state"
	"lorad/proto"
)

const (
	tick        = 100 * time.Millisecond
	pingTimeout = time.Second // a busy machine answers late; a killed process refuses at once
)

// lead waits to be elected and leads as long as that lasts, again and again.
func (c *Coordinator) lead(ctx context.Context) {
	for ctx.Err() == nil {
		if c.raft.State() == raft.Leader {
			c.reign(ctx)
		}
		select {
		case <-ctx.Done():
		case <-c.raft.LeaderCh():
		case <-time.After(time.Second): // a reign may have failed to begin
		}
	}
}

// reign is one term as the leader. What it remembers is only to say or ask nothing twice.
type reign struct {
	*Coordinator
	probed map[string]uint64 // by run: the generation whose members were asked whether they are alive
	said   map[string]string // by run: why it waits
	passed *time.Time        // when it last tried to hand leadership over
}

func (c *Coordinator) reign(ctx context.Context) {
	if err := c.raft.Barrier(proposeTimeout).Error(); err != nil {
		return
	}
	c.log.Info("leads the cluster", "term", c.raft.CurrentTerm())
	r := reign{c, map[string]uint64{}, map[string]string{}, new(time.Time)}
	if err := r.found(); err != nil {
		c.log.Warn("cluster was not recorded", "err", err)
	}
	for c.raft.State() == raft.Leader && ctx.Err() == nil {
		changed, _ := c.fsm.next()
		seen := c.gossip.wait()
		nodes, more := r.step(ctx)
		if more {
			continue
		}
		select { // what changes meanwhile is looked at together
		case <-ctx.Done():
		case <-time.After(time.Duration(nodes) * restEach):
		}
		select {
		case <-ctx.Done():
		case <-time.After(tick + time.Duration(nodes)*tickEach):
		case <-changed:
		case <-seen:
		}
	}
	c.wire.hush(nil, 0, nil)
	c.log.Info("leads no longer")
}

// found records the cluster itself, if this node made it.
func (r reign) found() error {
	if len(r.creds.sealed) == 0 || read(r.fsm, (*state.Machine).Cluster) != nil {
		return nil
	}
	cluster := &proto.Cluster{Id: r.creds.ClusterID, SealedCaKey: r.creds.sealed}
	_, err := r.propose(&proto.Command{Do: &proto.Command_PutCluster{PutCluster: &proto.PutCluster{Cluster: cluster}}})
	return err
}

// A look costs some microseconds a node, so that a leader of many looks less often: with 200 nodes twenty times a second at most, and twice if
// nothing changes.
const (
	restEach = 250 * time.Microsecond
	tickEach = 2 * time.Millisecond
)

// step looks once at everything and does what there is to do. Of Raft's configuration that is one change: then there may be more.
func (r reign) step(ctx context.Context) (nodes int, more bool) {
	view := r.fsm.view()
	more = r.reconcile(ctx, view.Nodes)
	r.yield()
	r.rotate()
	r.probe(ctx, view.Runs)
	live := r.gossip.liveness(view.Nodes)
	for _, d := range sched.Next(view, live, r.now().UnixMilli()) {
		if err := r.carryOut(d); err != nil {
			r.log.Warn("decision was not carried out", "run", d.Run, "reason", d.Reason, "err", err)
			break
		}
	}
	return len(view.Nodes), more
}

func (r reign) carryOut(d sched.Decision) error {
	if d.Command == nil {
		if r.said[d.Run] != d.Reason {
			r.log.Debug("run waits", "run", d.Run, "reason", d.Reason)
		}
		r.said[d.Run] = d.Reason
		return nil
	}
	reply, err := r.propose(d.Command)
	if err != nil {
		return err
	}
	if reply.RefusalKind != "" {
		return &state.Error{Kind: state.Kind(reply.RefusalKind), Text: reply.Refusal}
	}
	r.log.Info("decided", "run", d.Run, "reason", d.Reason, "generation", d.Command.GetGrantLease().GetLease().GetGeneration())
	return nil
}

// probe asks the members of a lease that was given up whether they are alive, once, before anything is decided, and those of any lease that only
// others call dead.
func (r reign) probe(ctx context.Context, runs []*proto.Run) {
	for _, run := range runs {
		if !state.Leased(run.Phase) {
			continue
		}
		gen := run.Trouble.GetGeneration()
		if gen == 0 || gen != run.Lease.Generation || r.probed[run.Spec.Run] == gen {
			r.ping(ctx, r.gossip.hearsayOf(run.Lease.Members))
			continue
		}
		r.probed[run.Spec.Run] = gen
		r.ping(ctx, run.Lease.Members)
	}
}

// ping asks nodes at the same time whether they are alive and notes the answers.
func (c *Coordinator) ping(ctx context.Context, ids []string) {
	var all sync.WaitGroup
	for _, id := range ids {
		if id != c.id {
			all.Go(func() { c.gossip.pinged(id, c.near.answers(ctx, id)) })
		}
	}
	all.Wait()
}

func ids(nodes []*proto.Node) []string {
	list := make([]string, len(nodes))
	for i, n := range nodes {
		list[i] = n.Id
	}
	return list
}
