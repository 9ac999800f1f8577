package coordinator

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// fewQuiet non-voters get what voters get, at once: it costs nothing that matters.
	fewQuiet = 8
	// paceEach is how much longer each non-voter lets all of them wait for what is new: 0.6 s with two hundred.
	paceEach  = 3 * time.Millisecond
	paceLeast = 100 * time.Millisecond
	// quietBeat is how often a non-voter hears from the leader if there is nothing new.
	quietBeat = 2 * time.Second
	// quietPatience is how long a non-voter hears nothing before it knows of no leader. It never stands for election.
	quietPatience = 5 * time.Second
)

// frugal is Raft's transport for a leader of many nodes. Raft has one set of times for all: ten heartbeats a second, and
// thirteen times a second the word of what is committed, to each voter and each of two hundred workers alike, which
// is a third of a core and more. Non-voters decide nothing and never stand for election, so here they are sent what is
// new in batches, and a heartbeat now and then; what has nothing new in it is answered for them. For voters, whose
// answers keep the leader in office, nothing changes.
//
// Sending is the smaller part of what that costs: most of it is waking up a process that sleeps, for one node at a time. So all
// non-voters are sent to at the same moments, a pace apart, and Raft's calls are kept until then: between them nothing
// runs for any of them.
type frugal struct {
	relay

	mu       sync.Mutex
	quiet    map[raft.ServerID]*contact // the non-voters; empty: not the leader, or few of them
	pace     time.Duration
	roles    chan struct{}                // closed when quiet changes
	progress func() (last, commit uint64) // of this node's log
}

// contact is what one non-voter is known to hold.
type contact struct {
	mu     sync.Mutex
	at     time.Time // of the last answer
	term   uint64
	last   uint64 // log entry
	commit uint64
}

// hush says who the non-voters are, of which there have to be more than few. It must be called before one of them becomes a voter.
func (f *frugal) hush(nonVoters []raft.ServerID, few int, progress func() (last, commit uint64)) {
	quiet := map[raft.ServerID]*contact{}
	if len(nonVoters) > few {
		for _, id := range nonVoters {
			quiet[id] = &contact{}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	same := func(*contact, *contact) bool { return true }
	if f.roles != nil && maps.EqualFunc(f.quiet, quiet, same) {
		return
	}
	for id, c := range f.quiet {
		if quiet[id] != nil {
			quiet[id] = c
		}
	}
	if f.roles != nil {
		close(f.roles)
	}
	f.quiet, f.roles, f.progress = quiet, make(chan struct{}), progress
	f.pace = max(paceLeast, time.Duration(len(quiet))*paceEach)
}

// turn is what goes for one non-voter until the roles change.
type turn struct {
	*contact // nil: it is none, or of few
	pace     time.Duration
	over     <-chan struct{}
	progress func() (last, commit uint64)
}

func (f *frugal) turn(id raft.ServerID) turn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return turn{f.quiet[id], f.pace, f.roles, f.progress}
}

// rest waits for the next of the moments that are a pace apart, the same for all.
func (t turn) rest() {
	select {
	case <-time.After(t.pace - time.Duration(time.Now().UnixNano())%t.pace):
	case <-t.over:
	}
}

// AppendEntriesPipeline is for voters: a pipeline sends each entry by itself.
func (f *frugal) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	if f.turn(id).contact != nil {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	p, err := f.relay.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	return &pipeline{p, f, id}, nil
}

// pipeline ends when its node is found to be a non-voter of many: Raft then goes on without one.
type pipeline struct {
	raft.AppendPipeline
	f  *frugal
	id raft.ServerID
}

func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if p.f.turn(p.id).contact != nil {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	return p.AppendPipeline.AppendEntries(req, resp)
}

// AppendEntries sends entries or a heartbeat. To a non-voter of many it sends what is new, and returns at the next moment at which
// something may be sent; if nothing is new, it returns when something is. Its heartbeats are sent in one call,
// which ends with the first that fails.
func (f *frugal) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t := f.turn(id)
	if t.contact == nil {
		return f.relay.AppendEntries(id, to, req, resp)
	}
	for t.contact != nil && !t.behind(req) {
		if !t.needless(req) {
			if err := f.relay.AppendEntries(id, to, req, resp); err != nil || !resp.Success {
				t.forget()
				return err
			}
			if t.note(req); !isBeat(req) {
				t.rest()
				return nil
			}
		}
		t.rest()
		t = f.turn(id)
	}
	*resp = raft.AppendEntriesResponse{RPCHeader: req.RPCHeader, Term: req.Term, LastLog: req.PrevLogEntry, Success: true}
	return nil
}

// isBeat: Raft's heartbeats say nothing of the log.
func isBeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.LeaderCommitIndex == 0 && len(req.Entries) == 0
}

// behind reports whether Raft would have more to say by now than req, which says nothing that the node does not hold.
func (t turn) behind(req *raft.AppendEntriesRequest) bool {
	if isBeat(req) || !t.needless(req) {
		return false
	}
	last, commit := t.progress()
	return last > req.PrevLogEntry || commit > req.LeaderCommitIndex
}

// needless reports whether the node holds what is in req, and need not hear from the leader before the next moment.
func (t turn) needless(req *raft.AppendEntriesRequest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := time.Since(t.at)
	if isBeat(req) {
		return req.Term == t.term && since < quietBeat-t.pace
	}
	return req.Term == t.term && since < quietBeat && len(req.Entries) == 0 && req.PrevLogEntry == t.last && req.LeaderCommitIndex <= t.commit
}

func (c *contact) note(req *raft.AppendEntriesRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = time.Now()
	if !isBeat(req) {
		c.last, c.commit = req.PrevLogEntry+uint64(len(req.Entries)), req.LeaderCommitIndex
	} else if c.term != req.Term { // a heartbeat says nothing of the log: ask anew
		c.last, c.commit = 0, 0
	}
	c.term = req.Term
}

// forget: whoever does not answer may have been started anew, and then knows of nothing that is committed.
func (c *contact) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.term, c.last, c.commit = 0, 0, 0
}

// sparing tells the transport who the non-voters are. vote is a node that is about to become one of the voters.
func (c *Coordinator) sparing(servers []raft.Server, vote string) {
	var quiet []raft.ServerID
	for _, s := range servers {
		if s.Suffrage != raft.Voter && string(s.ID) != vote {
			quiet = append(quiet, s.ID)
		}
	}
	c.wire.hush(quiet, c.few, func() (last, commit uint64) { return c.raft.LastIndex(), c.raft.CommitIndex() })
}

// settleTimes gives a non-voter more patience with the leader, and takes it back when it votes.
func (c *Coordinator) settleTimes() {
	want, r, voters := quietPatience, c.raft.ReloadableConfig(), c.voterIDs()
	if len(voters) == 0 || slices.Contains(voters, c.id) {
		want = heartbeat
	}
	if r.HeartbeatTimeout > want/2 && r.HeartbeatTimeout <= want {
		return
	}
	r.HeartbeatTimeout, r.ElectionTimeout = want, want
	if err := c.raft.ReloadConfig(r); err != nil {
		c.log.Warn("raft's times were not changed", "err", err)
	}
}
