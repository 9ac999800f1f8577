package coordinator

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// inLine is how long the next in line waits for the one before to be elected.
	inLine = 250 * time.Millisecond
	// unheard is how long Raft must have heard nothing from a leader who is to be replaced. It sends heartbeats every 70
	// to 140 ms.
	unheard = 250 * time.Millisecond
	// askAgain is the pause before a voter that could not be asked is asked again.
	askAgain = 20 * time.Millisecond
)

// relay is a Raft transport around another one, with what Raft looks for beside raft.Transport.
type relay struct{ raft.Transport }

func (r relay) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return r.Transport.(raft.WithPreVote).RequestPreVote(id, to, req, resp)
}

func (r relay) Close() error { return r.Transport.(raft.WithClose).Close() }

// electable is Raft's transport, through which this node can also tell itself to stand for election.
type electable struct {
	relay
	rpcs   chan raft.RPC
	asked  atomic.Int64 // when another one last stood: unix nanoseconds
	done   chan struct{}
	closed sync.Once
}

func newElectable(tr raft.Transport) *electable {
	e := &electable{relay: relay{tr}, rpcs: make(chan raft.RPC), done: make(chan struct{})}
	go e.pass()
	return e
}

// pass hands on what others ask.
func (e *electable) pass() {
	for {
		select {
		case r := <-e.relay.Consumer():
			if _, ok := r.Command.(*raft.RequestVoteRequest); ok {
				e.asked.Store(time.Now().UnixNano())
			}
			select {
			case e.rpcs <- r:
			case <-e.done:
				return
			}
		case <-e.done:
			return
		}
	}
}

// Consumer implements raft.Transport.
func (e *electable) Consumer() <-chan raft.RPC { return e.rpcs }

// Close implements raft.WithClose: Raft closes it too.
func (e *electable) Close() error {
	e.closed.Do(func() { close(e.done) })
	return e.relay.Close()
}

// RequestVote implements raft.Transport. Raft asks each voter once an election. But it keeps connections open, and those to a
// voter that was started anew since they were last used break at the first word; and a voter that is just starting
// is there in a moment. To lose its vote would cost the whole election, and the next one would be held without the right to
// depose a leader that others still believe in. A voter that is asked twice answers as the first time.
func (e *electable) RequestVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return e.insist(func() error { return e.relay.RequestVote(id, to, req, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (e *electable) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return e.insist(func() error { return e.relay.RequestPreVote(id, to, req, resp) })
}

// insist calls until an answer comes, for as long as the shortest election.
func (e *electable) insist(call func() error) error {
	for began := time.Now(); ; {
		err := call()
		if err == nil || time.Since(began) >= heartbeat {
			return err
		}
		select {
		case <-time.After(askAgain):
		case <-e.done:
			return err
		}
	}
}

// stand has this node stand for election at once, as a leader that hands over asks its successor to. Voters then vote
// for it although they believe in a leader.
func (e *electable) stand() {
	now := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	select {
	case e.rpcs <- raft.RPC{Command: now, RespChan: make(chan raft.RPCResponse, 1)}:
	case <-e.done:
	case <-time.After(inLine):
	}
}

// doubt is called by whoever has reason to think that the leader is gone: it does not answer, or the ring says so. If a
// ping confirms it, the voters stand for election, one after the other, instead of waiting until Raft has missed enough
// heartbeats: Raft's times have to allow for machines that are busy, a ping that is refused does not. Whoever hears from
// the leader, or of another election, meanwhile does not stand: an election too many does no harm but costs a second.
func (c *Coordinator) doubt(leader string) {
	if leader == "" || leader == c.id || c.ctx.Err() != nil || !c.doubting.CompareAndSwap(false, true) {
		return
	}
	c.work.Go(func() {
		defer c.doubting.Store(false)
		term := c.raft.CurrentTerm()
		if !c.dead(leader) {
			return
		}
		place := c.placeInLine(leader)
		silent := unheard - time.Since(c.raft.LastContact())
		if place < 0 || sleep(c.ctx, max(silent, 0)+time.Duration(place)*inLine) != nil {
			return
		}
		other := time.Since(time.Unix(0, c.elect.asked.Load())) < heartbeat // stands: its term may still be on its way to our disk
		if !other && c.raft.State() == raft.Follower && c.raft.CurrentTerm() == term && time.Since(c.raft.LastContact()) >= unheard {
			c.log.Info("stands for election: the leader does not answer", "leader", leader, "place", place)
			c.elect.stand()
		}
	})
}

// dead reports whether the node does not answer. A node that was started a moment ago may not know yet where the others
// are: that is no reason to call them dead.
func (c *Coordinator) dead(id string) bool {
	if c.addr(id) == "" {
		return false
	}
	answered := c.near.answers(c.ctx, id)
	c.gossip.pinged(id, answered)
	return !answered
}

// placeInLine is this node's place among the voters that may follow a leader: the living by id, witnesses last; -1: it
// does not vote.
func (c *Coordinator) placeInLine(leader string) int {
	f := c.raft.GetConfiguration()
	if f.Error() != nil {
		return -1
	}
	var full, witnesses []string
	for _, s := range f.Configuration().Servers {
		switch id := string(s.ID); {
		case s.Suffrage != raft.Voter || id == leader || !c.gossip.alive(id):
		case c.fsm.node(id).GetWitness():
			witnesses = append(witnesses, id)
		default:
			full = append(full, id)
		}
	}
	slices.Sort(full)
	slices.Sort(witnesses)
	return slices.Index(append(full, witnesses...), c.id)
}

// leader is the id of the leader that Raft believes in, or "".
func (c *Coordinator) leader() string {
	_, id := c.raft.LeaderWithID()
	return string(id)
}
