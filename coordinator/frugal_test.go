package coordinator

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// counted is a transport that counts what it is given to send.
type counted struct {
	raft.Transport
	sent map[raft.ServerID]int
	fail bool
}

func (c *counted) AppendEntries(id raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	c.sent[id]++
	if c.fail {
		return fmt.Errorf("cut")
	}
	*resp = raft.AppendEntriesResponse{Term: req.Term, LastLog: req.PrevLogEntry + uint64(len(req.Entries)), Success: true}
	return nil
}

// TestNonVotersAreSpared: ten seconds of Raft's own heartbeats and ticks. A voter gets them all, a non-voter a heartbeat a
// second, whatever is new within the pace, and nothing is said in its name when it does not answer.
func TestNonVotersAreSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wire := &counted{sent: map[raft.ServerID]int{}}
		f := &frugal{relay: relay{wire}}
		quiet := []raft.ServerID{"worker"}
		for i := range 99 {
			quiet = append(quiet, raft.ServerID(fmt.Sprint(i)))
		}
		f.hush(quiet, fewQuiet)
		beat := &raft.AppendEntriesRequest{Term: 3}
		for _, id := range []raft.ServerID{"voter", "worker"} {
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				var resp raft.AppendEntriesResponse
				if err := f.AppendEntries(id, "", beat, &resp); err != nil || !resp.Success || resp.Term != 3 {
					t.Fatal(resp, err)
				}
			}
		}
		if v, w := wire.sent["voter"], wire.sent["worker"]; v != 100 || w < 4 || w > 6 {
			t.Errorf("sent %d heartbeats to a voter and %d to a worker", v, w)
		}
		entry := func(prev, commit uint64, n int) time.Duration {
			req := &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: prev, LeaderCommitIndex: commit, Entries: make([]*raft.Log, n)}
			began, before := time.Now(), wire.sent["worker"]
			var resp raft.AppendEntriesResponse
			if err := f.AppendEntries("worker", "", req, &resp); err != nil || !resp.Success {
				t.Fatal(err)
			}
			if wire.sent["worker"] == before && (n > 0 || commit > prev) {
				t.Errorf("what is new was not sent: %v", req)
			}
			return time.Since(began)
		}
		entry(7, 7, 1)
		if d := entry(8, 9, 0); d > 100*paceEach {
			t.Errorf("the word of a commit took %v", d)
		}
		f.hush(quiet[1:], fewQuiet) // it votes now
		before := wire.sent["worker"]
		f.AppendEntries("worker", "", beat, &raft.AppendEntriesResponse{})
		if wire.sent["worker"] != before+1 {
			t.Error("a voter was answered for")
		}
		f.hush(quiet, fewQuiet)
		wire.fail = true
		time.Sleep(2 * quietBeat)
		if err := f.AppendEntries("worker", "", beat, &raft.AppendEntriesResponse{}); err == nil {
			t.Error("a node that is gone was answered for")
		}
		f.hush(quiet[:fewQuiet], fewQuiet)
		if c, _ := f.contact("worker"); c != nil {
			t.Error("a few non-voters are spared what costs nothing")
		}
	})
}
