package coordinator

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"lorad/proto"
)

// slowSnaps keeps snapshots that take two seconds to write, and forgets one during which the power went.
type slowSnaps struct {
	raft.SnapshotStore
	writing atomic.Bool
	off     atomic.Bool
}

func (s *slowSnaps) Create(v raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, tr raft.Transport) (raft.SnapshotSink, error) {
	return &slowSink{to: s, create: func() (raft.SnapshotSink, error) {
		return s.SnapshotStore.Create(v, index, term, conf, confIndex, tr)
	}}, nil
}

type slowSink struct {
	bytes.Buffer
	to     *slowSnaps
	create func() (raft.SnapshotSink, error)
}

func (k *slowSink) ID() string    { return "slow" }
func (k *slowSink) Cancel() error { return nil }

func (k *slowSink) Close() error {
	k.to.writing.Store(true)
	time.Sleep(2 * time.Second)
	k.to.writing.Store(false)
	if k.to.off.Load() {
		return errors.New("the power went")
	}
	sink, err := k.create()
	if err != nil {
		return err
	}
	if _, err := sink.Write(k.Bytes()); err != nil {
		return err
	}
	return sink.Close()
}

// TestLeaderDiesInAnyPhase: while it commits, while it is being elected, while it writes a snapshot. What was accepted is
// there, somebody else leads, and the dead one comes back and agrees.
func TestLeaderDiesInAnyPhase(t *testing.T) {
	for name, strike := range map[string]func(*bubble, *cell){
		"committing":    dieCommitting,
		"being elected": dieElected,
		"a snapshot":    dieInSnapshot,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 3)
				b.until("three voters", time.Minute, func() bool { return b.leader() != nil && len(b.leader().voterIDs()) == 3 })
				occupy(t, b)
				strike(b, b.leader())
				b.until("another leader", time.Minute, func() bool { return b.leader() != nil })
				if _, err := b.leader().ctl.Submit(t.Context(), &proto.SubmitRequest{JobYaml: "job: after", Dir: "/out"}); err != nil {
					t.Fatal(err)
				}
				for _, c := range b.all() {
					if !c.up {
						c.start()
					}
				}
				l := &life{bubble: b}
				b.until("replicas of one mind", time.Minute, func() bool { return l.ofOneMind() == nil && len(b.leader().Runs()) == 2 })
			})
		})
	}
}

func dieCommitting(b *bubble, lead *cell) {
	go lead.propose(&proto.Command{Do: &proto.Command_PutNode{PutNode: &proto.PutNode{Node: recorded(lead.id)}}})
	lead.crash()
}

func dieElected(b *bubble, lead *cell) {
	lead.crash()
	var next *cell
	b.until("a candidate", time.Minute, func() bool {
		for _, c := range b.running() {
			if c.raft.State() == raft.Candidate || c.raft.State() == raft.Leader {
				next = c
			}
		}
		return next != nil
	})
	next.crash()
	lead.start() // two are needed
}

func dieInSnapshot(b *bubble, lead *cell) {
	lead.crash()
	slow := &slowSnaps{SnapshotStore: lead.snaps}
	lead.snaps = slow
	lead.start()
	b.until("a leader", time.Minute, func() bool { return b.leader() != nil })
	if err := b.leader().raft.LeadershipTransferToServer(raft.ServerID(lead.id), raft.ServerAddress(lead.id)).Error(); err != nil && !lead.leads() {
		b.t.Log("it does not lead while it writes: ", err)
	}
	done := lead.raft.Snapshot()
	b.until("a snapshot to be under way", time.Minute, slow.writing.Load)
	slow.off.Store(true)
	lead.crash()
	if done.Error() == nil {
		b.t.Error("the snapshot was said to be written")
	}
	slow.off.Store(false)
}

func (c *cell) leads() bool { return c.raft.State() == raft.Leader }
