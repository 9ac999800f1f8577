package coordinator

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// fewQuiet non-voters get what voters get, at once: it costs nothing that matters.
	fewQuiet = 8
	// paceEach is how much longer each non-voter lets all of them wait for what is new: 0.6 s with two hundred.
	paceEach = 3 * time.Millisecond
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
type frugal struct {
	relay

	mu    sync.Mutex
	quiet map[raft.ServerID]*contact // the non-voters; empty: not the leader, or few of them
	pace  time.Duration
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
func (f *frugal) hush(nonVoters []raft.ServerID, few int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(nonVoters) <= few {
		nonVoters = nil
	}
	old := f.quiet
	f.quiet, f.pace = map[raft.ServerID]*contact{}, time.Duration(len(nonVoters))*paceEach
	for _, id := range nonVoters {
		if f.quiet[id] = old[id]; f.quiet[id] == nil {
			f.quiet[id] = &contact{}
		}
	}
}

func (f *frugal) contact(id raft.ServerID) (*contact, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.quiet[id], f.pace
}

// AppendEntriesPipeline is for voters: a pipeline sends each entry by itself.
func (f *frugal) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	if c, _ := f.contact(id); c != nil {
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
	if c, _ := p.f.contact(p.id); c != nil {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	return p.AppendPipeline.AppendEntries(req, resp)
}

// AppendEntries sends entries or a heartbeat, or, to a non-voter, what would be neither.
func (f *frugal) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	c, pace := f.contact(id)
	if c == nil {
		return f.relay.AppendEntries(id, to, req, resp)
	}
	wait, needless := c.look(req, pace)
	time.Sleep(wait)
	if needless {
		*resp = raft.AppendEntriesResponse{RPCHeader: req.RPCHeader, Term: req.Term, LastLog: req.PrevLogEntry, Success: true}
		return nil
	}
	err := f.relay.AppendEntries(id, to, req, resp)
	if err == nil && resp.Success {
		c.note(req)
	}
	return err
}

// look says how long to wait with req, and whether it has nothing new and need not be sent then. Raft's timers run on at
// their pace for voters if they are answered at once.
func (c *contact) look(req *raft.AppendEntriesRequest, pace time.Duration) (wait time.Duration, needless bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := time.Since(c.at)
	beat := req.PrevLogEntry == 0 && req.LeaderCommitIndex == 0
	known := beat || req.PrevLogEntry == c.last && req.LeaderCommitIndex <= c.commit
	needless = len(req.Entries) == 0 && req.Term == c.term && known && since < quietBeat
	switch {
	case needless && beat:
		return quietBeat - since, true
	case needless:
		return pace, true
	case beat:
		return 0, false
	}
	return max(0, pace-since), false
}

func (c *contact) note(req *raft.AppendEntriesRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = time.Now()
	if req.PrevLogEntry == 0 && req.LeaderCommitIndex == 0 && len(req.Entries) == 0 {
		if c.term != req.Term { // a heartbeat says nothing of the log: ask anew
			c.last, c.commit = 0, 0
		}
		c.term = req.Term
		return
	}
	c.term, c.last, c.commit = req.Term, req.PrevLogEntry+uint64(len(req.Entries)), req.LeaderCommitIndex
}

// sparing tells the transport who the non-voters are. vote is a node that is about to become one of the voters.
func (c *Coordinator) sparing(servers []raft.Server, vote string) {
	var quiet []raft.ServerID
	for _, s := range servers {
		if s.Suffrage != raft.Voter && string(s.ID) != vote {
			quiet = append(quiet, s.ID)
		}
	}
	c.wire.hush(quiet, c.few)
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
