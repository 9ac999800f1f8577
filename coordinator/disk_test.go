package coordinator

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// The first write that fails ends the node, with the reason; Raft does not get to panic over a vote.
func TestLogThatCannotBeWrittenEndsTheNode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	store, err := raftboltdb.New(raftboltdb.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	c := &Coordinator{failed: make(chan error, 1), stop: func() {}}
	d := raftDisk{store, path, c.fail, make(chan struct{})}
	if err := d.StoreLogs([]*raft.Log{{Index: 1, Term: 1}}); err != nil {
		t.Fatal(err)
	}
	store.Close()
	if err := d.StoreLogs([]*raft.Log{{Index: 2, Term: 1}}); err == nil {
		t.Fatal("want an error")
	}
	returned := make(chan struct{})
	go func() { d.SetUint64([]byte("CurrentTerm"), 2); close(returned) }()
	select {
	case err := <-c.Failed():
		if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "this node stops") {
			t.Errorf("unclear: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node goes on")
	}
	select {
	case <-returned:
		t.Fatal("Raft was told, and panics")
	case <-time.After(50 * time.Millisecond):
	}
	close(d.hold)
	<-returned
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
