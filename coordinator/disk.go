package coordinator

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// raftReserve is room that is set aside for Raft's log when a node starts, in bytes: a disk that others fill up later
// does not stop the node. The log is cut after snapshotThreshold entries and stays far below it.
const raftReserve = 16 << 20

// raftDisk is Raft's log and vote. What Raft does when it cannot write them is no use to anybody: it panics over a term
// or a vote, and a leader without a log becomes a follower that soon must write a term. Here the first failure ends the
// node, in words, and Raft sees no more of it. What was written before stays as it is: every write is a transaction.
// (That old entries cannot be deleted is no reason to end: Raft tries again after the next snapshot.)
type raftDisk struct {
	*raftboltdb.BoltStore
	path string
	fail func(error)
	hold chan struct{} // nil: for ever
}

// StoreLog implements raft.LogStore.
func (d raftDisk) StoreLog(l *raft.Log) error { return d.check(d.BoltStore.StoreLog(l)) }

// StoreLogs implements raft.LogStore.
func (d raftDisk) StoreLogs(l []*raft.Log) error { return d.check(d.BoltStore.StoreLogs(l)) }

// Set implements raft.StableStore.
func (d raftDisk) Set(k, v []byte) error { return d.mustHold(d.BoltStore.Set(k, v)) }

// SetUint64 implements raft.StableStore.
func (d raftDisk) SetUint64(k []byte, v uint64) error { return d.mustHold(d.BoltStore.SetUint64(k, v)) }

func (d raftDisk) check(err error) error {
	if err != nil {
		d.fail(fmt.Errorf("write %s: %w; this node stops, and what it has stays whole: free some space, or mend the disk, and start it again", d.path, err))
	}
	return err
}

// mustHold keeps Raft from panicking while the node ends.
func (d raftDisk) mustHold(err error) error {
	if d.check(err) != nil {
		<-d.hold
	}
	return nil
}

// Failed gives the reason when the node cannot go on: its disk does not take Raft's log any more. The caller ends the
// process, or closes the coordinator.
func (c *Coordinator) Failed() <-chan error { return c.failed }

// fail notes the first reason.
func (c *Coordinator) fail(err error) {
	if c.broken.CompareAndSwap(false, true) {
		c.failed <- err
	}
}

// openLog opens Raft's log and votes in a state directory.
func openLog(dir string) (store *raftboltdb.BoltStore, path string, err error) {
	path = filepath.Join(dir, "raft.db")
	store, err = raftboltdb.New(raftboltdb.Options{Path: path, MsgpackUseNewTimeFormat: true})
	if err != nil {
		return nil, path, fmt.Errorf("open %s: %w", path, err)
	}
	return store, path, nil
}

// openDisk opens Raft's log and sets room for it aside.
func (c *Coordinator) openDisk() (raftDisk, error) {
	store, path, err := openLog(c.cfg.Dir)
	if err != nil {
		return raftDisk{}, err
	}
	c.undo(func() { store.Close() })
	if err := reserve(path, raftReserve); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		c.log.Warn("no room was set aside for the cluster's log: the node will stop if the disk becomes full", "err", err)
	}
	return raftDisk{BoltStore: store, path: path, fail: c.fail}, nil
}
