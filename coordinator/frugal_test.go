package coordinator

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// counted is a transport that counts what it is given to send.
type counted struct {
	raft.Transport
	mu   sync.Mutex
	sent map[raft.ServerID]int
	fail atomic.Bool
}

func (c *counted) AppendEntries(id raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	c.mu.Lock()
	c.sent[id]++
	c.mu.Unlock()
	if c.fail.Load() {
		return fmt.Errorf("cut")
	}
	*resp = raft.AppendEntriesResponse{Term: req.Term, LastLog: req.PrevLogEntry + uint64(len(req.Entries)), Success: true}
	return nil
}

func (c *counted) to(id raft.ServerID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent[id]
}

// leading is a leader's transport to a hundred non-voters, and what it has in its log.
type leading struct {
	*frugal
	wire         *counted
	quiet        []raft.ServerID
	last, commit atomic.Uint64
}

func newLeading() *leading {
	wire := &counted{sent: map[raft.ServerID]int{}}
	l := &leading{frugal: &frugal{relay: relay{wire}}, wire: wire, quiet: []raft.ServerID{"worker"}}
	for i := range 99 {
		l.quiet = append(l.quiet, raft.ServerID(fmt.Sprint(i)))
	}
	l.appoint(l.quiet)
	return l
}

// appoint says who does not vote.
func (l *leading) appoint(quiet []raft.ServerID) {
	l.hush(quiet, fewQuiet, func() (uint64, uint64) { return l.last.Load(), l.commit.Load() })
}

// send is one call of Raft's, which must be told that all is well. It says how often the node was sent something, and how long that took.
func (l *leading) send(t *testing.T, id raft.ServerID, req *raft.AppendEntriesRequest) (sent int, took time.Duration) {
	t.Helper()
	began, before := time.Now(), l.wire.to(id)
	var resp raft.AppendEntriesResponse
	if err := l.AppendEntries(id, "", req, &resp); err != nil || !resp.Success || resp.Term != req.Term {
		t.Fatal(resp, err)
	}
	return l.wire.to(id) - before, time.Since(began)
}

const pace100 = 100 * paceEach

// TestHeartbeatsOfNonVoters: a voter gets each of Raft's heartbeats, a non-voter one every other second, until it votes or does
// not answer.
func TestHeartbeatsOfNonVoters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, beat := newLeading(), &raft.AppendEntriesRequest{Term: 3}
		if n, d := l.send(t, "voter", beat); n != 1 || d != 0 {
			t.Errorf("%d heartbeats to a voter, in %v", n, d)
		}
		time.AfterFunc(20*time.Second, func() { l.appoint(l.quiet[1:]) })
		if n, d := l.send(t, "worker", beat); n < 10 || n > 12 || d != 20*time.Second {
			t.Errorf("%d heartbeats to a worker in %v", n, d)
		}
		if n, _ := l.send(t, "worker", beat); n != 1 {
			t.Error("a voter was answered for")
		}
		l.appoint(l.quiet)
		time.AfterFunc(3*time.Second, func() { l.wire.fail.Store(true) })
		if err := l.AppendEntries("worker", "", beat, &raft.AppendEntriesResponse{}); err == nil {
			t.Error("a node that is gone was answered for")
		}
		l.wire.fail.Store(false)
		if n, _ := l.send(t, "worker", &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, LeaderCommitIndex: 7}); n != 1 {
			t.Error("what a node knew that is back was taken for known")
		}
		l.appoint(l.quiet[:fewQuiet])
		if l.turn("worker").contact != nil {
			t.Error("a few non-voters are spared what costs nothing")
		}
	})
}

// TestEntriesForNonVoters: what is new goes out at once, but not twice within a pace; a call with nothing new lasts until there is.
func TestEntriesForNonVoters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeading()
		time.Sleep(time.Millisecond)
		at := func(prev, commit uint64, n int) *raft.AppendEntriesRequest {
			return &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: prev, LeaderCommitIndex: commit, Entries: make([]*raft.Log, n)}
		}
		go l.AppendEntries("worker", "", &raft.AppendEntriesRequest{Term: 3}, &raft.AppendEntriesResponse{}) // Raft's other goroutine
		synctest.Wait()
		l.last.Store(9)
		l.commit.Store(8)
		if n, d := l.send(t, "worker", at(7, 7, 2)); n != 1 || d > pace100 {
			t.Errorf("new entries were sent %d times, and then Raft was kept for %v", n, d)
		}
		l.commit.Store(9)
		if n, d := l.send(t, "worker", at(9, 9, 0)); n != 1 || d > pace100 {
			t.Errorf("a commit was sent %d times, and then Raft was kept for %v", n, d)
		}
		for _, news := range []*atomic.Uint64{&l.last, &l.commit} {
			before := l.wire.to("worker")
			time.AfterFunc(10*time.Second, func() { news.Store(10) })
			_, d := l.send(t, "worker", at(9, 9, 0))
			if beats := l.wire.to("worker") - before; beats > 7 || d < 10*time.Second || d > 10*time.Second+pace100 {
				t.Errorf("news of %v ago was waited for for %v, with %d messages", 10*time.Second, d, beats)
			}
			if time.Now().UnixNano()%int64(pace100) != 0 {
				t.Error("nodes are not sent to at the same moments")
			}
			news.Store(9)
		}
		l.appoint(nil)
		synctest.Wait()
	})
}
