package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	pb "google.golang.org/protobuf/proto"

	"lorad/coordinator/state"
	"lorad/proto"
)

const (
	proposeTimeout = 2 * time.Second // to get a command into Raft's queue
	forwardTimeout = 3 * time.Second // for one try at one leader
	retryPause     = 50 * time.Millisecond
)

var errNoLeader = errors.New("no leader is elected")

// apply has the leader carry out a command and returns when this node's replica has it too. It goes on through
// elections until ctx ends. A command that is tried again because its reply was lost is carried out once. The error is
// a *state.Error if the command was refused.
func (c *Coordinator) apply(ctx context.Context, cmd *proto.Command) (*proto.ApplyReply, error) {
	for {
		leader := c.leader()
		reply, err := c.try(ctx, leader, cmd)
		if err == nil {
			return reply, c.conclude(ctx, reply)
		}
		if !retryable(err) {
			return nil, err
		}
		c.doubt(leader)
		if why := c.Outcast(); why != nil {
			return nil, why
		}
		if sleep(ctx, retryPause) != nil {
			return nil, c.noQuorum(ctx, err)
		}
	}
}

// conclude turns a refusal into an error, and waits for the command to reach this replica otherwise.
func (c *Coordinator) conclude(ctx context.Context, r *proto.ApplyReply) error {
	if r.RefusalKind != "" {
		return &state.Error{Kind: state.Kind(r.RefusalKind), Text: r.Refusal}
	}
	return c.reach(ctx, r.Index)
}

// reach waits for this replica to hold the command with an index.
func (c *Coordinator) reach(ctx context.Context, want uint64) error {
	for {
		changed, index := c.fsm.next()
		if index >= want {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// try has one go: here if we lead, else at the leader.
func (c *Coordinator) try(ctx context.Context, leader string, cmd *proto.Command) (*proto.ApplyReply, error) {
	switch leader {
	case "":
		return nil, errNoLeader
	case c.id:
		return c.propose(cmd)
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	return c.near.apply(ctx, leader, cmd)
}

// propose puts a command into the log. Only the leader can.
func (c *Coordinator) propose(cmd *proto.Command) (*proto.ApplyReply, error) {
	if cmd.GetRemoveNode().GetId() == c.id { // whoever leads next can still talk to everybody when this node cannot
		if err := c.raft.LeadershipTransfer().Error(); err != nil {
			return nil, err
		}
		return nil, raft.ErrLeadershipTransferInProgress
	}
	stamped := &proto.Command{NowUnixMs: c.now().UnixMilli(), Do: cmd.Do, Id: cmd.Id}
	b, err := pb.Marshal(stamped)
	if err != nil {
		return nil, err
	}
	f := c.raft.Apply(b, proposeTimeout)
	if err := f.Error(); err != nil {
		return nil, err
	}
	return replyTo(cmd, f.Index(), f.Response().(applied)), nil
}

// replyTo is the outcome of a command as it goes over the wire.
func replyTo(cmd *proto.Command, index uint64, a applied) *proto.ApplyReply {
	r := &proto.ApplyReply{Index: index, Existed: a.result.Existed, Node: a.result.Node}
	var refusal *state.Error
	if errors.As(a.err, &refusal) {
		r.RefusalKind, r.Refusal = string(refusal.Kind), refusal.Text
	}
	// A report from an old generation matters to its sender only if steps of it were left out.
	if steps := cmd.GetReport().GetSteps(); a.result.Stale && len(steps) > 0 {
		r.Stale = steps[len(steps)-1].Step > a.result.Run.Step
	}
	return r
}

// retryable says whether the same command may fare better in a moment, perhaps with another leader.
func retryable(err error) bool {
	for _, e := range []error{
		errNoLeader, raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress, raft.ErrEnqueueTimeout,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Aborted
}

// noQuorum says what the caller waited for in vain.
func (c *Coordinator) noQuorum(ctx context.Context, last error) error {
	asking, cancel := context.WithTimeout(c.ctx, pingTimeout) // the caller's time is over, and gossip is slow to notice
	defer cancel()
	c.ping(asking, ids(c.Nodes()))
	voters, reachable := c.voters()
	if reachable > voters/2 {
		return fmt.Errorf("ask leader: %w (%w)", last, ctx.Err())
	}
	return fmt.Errorf("ask leader: no quorum: %d of %d voters reachable; start the others again, or wait for the network (%w)",
		reachable, voters, ctx.Err())
}

// voters counts Raft's voters and those of them that gossip knows to be alive.
func (c *Coordinator) voters() (voters, reachable int) {
	ids := c.voterIDs()
	for _, id := range ids {
		if c.gossip.alive(id) {
			reachable++
		}
	}
	return len(ids), reachable
}

// voterIDs lists Raft's voters as this node knows them.
func (c *Coordinator) voterIDs() (ids []string) {
	f := c.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// sleep waits, or returns ctx's error at once when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
