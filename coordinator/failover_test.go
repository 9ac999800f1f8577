package coordinator

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A node that stands for election is elected although the others have a leader; that is how a dead one is replaced
// before Raft misses it. A leader that answers is left in office.
func TestStandingForElection(t *testing.T) {
	t.Parallel()
	boxes := three(t)
	eventually(t, "three voters", func() bool { v, _ := boxes[0].voters(); return v == 3 })
	eventually(t, "a leader that answers and stays, unless the machine is so busy that another election comes", func() bool {
		old, rest := leader(boxes)
		term := old.raft.CurrentTerm()
		rest[0].doubt(old.ID())
		eventually(t, "the doubt to be settled", func() bool { return !rest[0].doubting.Load() })
		return rest[0].raft.CurrentTerm() == term && old.leads()
	})
	old, rest := leader(boxes)
	eventually(t, "another leader", func() bool { // on a busy machine somebody else may stand at the same time
		rest[0].elect.stand()
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if rest[0].leads() && rest[1].leader() == rest[0].ID() {
				return true
			}
		}
		return false
	})
	if a, b := rest[0].placeInLine(old.ID()), rest[1].placeInLine(old.ID()); a+b != 1 {
		t.Errorf("places in line: %d and %d", a, b)
	}
}

// A voter that was started anew since the candidate last talked to it is heard in the first election: Raft's connections to its
// process of before break at the first word.
func TestVoteOfARestartedVoter(t *testing.T) {
	t.Parallel()
	boxes := three(t)
	old, rest := leader(boxes)
	next, other := rest[0], rest[1]
	handTo(t, next, old, other) // so that it has connections to the others
	handTo(t, old, next, other)
	addr := other.mux.Advertise()
	other.close()
	creds, err := Load(other.dir)
	if err != nil {
		t.Fatal(err)
	}
	other = openWith(t, other.dir, "box", addr, creds, func(*Config) {})
	if err := other.Ready(other.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	handTo(t, old, next, other)
	term := next.raft.CurrentTerm()
	old.kill()
	next.elect.stand()
	eventually(t, "a leader", func() bool { return next.raft.State() == raft.Leader })
	if got := next.raft.CurrentTerm(); got != term+1 {
		t.Errorf("it took %d elections", got-term)
	}
}

// deaf is a transport that breaks some times.
type deaf struct {
	raft.Transport
	times int
}

func (d *deaf) RequestVote(raft.ServerID, raft.ServerAddress, *raft.RequestVoteRequest, *raft.RequestVoteResponse) error {
	if d.times--; d.times >= 0 {
		return io.EOF
	}
	return nil
}

// A voter is asked again for as long as an election lasts, and no longer.
func TestVotersAreAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for times, want := range map[int]error{0: nil, 3: nil, 1000: io.EOF} {
			began := time.Now()
			e := &electable{relay: relay{&deaf{times: times}}, done: make(chan struct{})}
			if err := e.RequestVote("b", "b", nil, nil); err != want || time.Since(began) > heartbeat+askAgain {
				t.Errorf("after %d failures: %v, in %v", times, err, time.Since(began))
			}
		}
	})
}

// Whoever has just been asked for a vote knows of it before Raft has taken note on its disk.
func TestAskedForAVote(t *testing.T) {
	_, line := raft.NewInmemTransport("b")
	addr, from := raft.NewInmemTransport("a")
	from.Connect("b", line)
	e := newElectable(line)
	defer e.relay.Transport.(*raft.InmemTransport).Close()
	defer close(e.done)
	began := time.Now()
	go from.RequestVote("b", "b", &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{Addr: []byte(addr)}}, &raft.RequestVoteResponse{})
	r := <-e.Consumer()
	if asked := time.Unix(0, e.asked.Load()); asked.Before(began.Add(-time.Second)) {
		t.Error("the election of another one was not noticed")
	}
	r.Respond(&raft.RequestVoteResponse{}, nil)
}

// handTo has next lead the others, all with the same log.
func handTo(t *testing.T, next *box, others ...*box) {
	t.Helper()
	eventually(t, "all to follow", func() bool {
		same := next.raft.State() == raft.Leader && next.raft.AppliedIndex() == next.raft.LastIndex()
		for _, b := range others {
			if b.raft.State() == raft.Leader {
				b.raft.LeadershipTransferToServer(raft.ServerID(next.ID()), raft.ServerAddress(next.ID())).Error()
			}
			same = same && b.leader() == next.ID() && b.raft.LastIndex() == next.raft.LastIndex()
		}
		return same
	})
}

// Whoever has just started and does not know yet where a node is does not call it dead.
func TestUnknownIsNotDead(t *testing.T) {
	t.Parallel()
	a := first(t)
	b := a.join(a.token(1, time.Minute))
	if err := b.Ready(b.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	if a.dead("unheard of") {
		t.Error("a node whose address is not known is called dead")
	}
	eventually(t, "the living to answer", func() bool { return !a.dead(b.ID()) })
	b.kill()
	if !a.dead(b.ID()) {
		t.Error("a node that does not answer is called alive")
	}
}
