package coordinator

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
	pb "google.golang.org/protobuf/proto"

	"lorad/coordinator/sched"
	"lorad/coordinator/state"
	"lorad/proto"
)

// maxSnapshot bounds what is read into memory, in bytes: some hundred runs of 100,000 steps.
const maxSnapshot = 2 << 30

// fsm is this node's replica of the state: Raft writes, everybody reads.
type fsm struct {
	mu      sync.RWMutex
	machine *state.Machine
	index   uint64        // of the last command that is in
	changed chan struct{} // closed at the next change
}

func newFSM() *fsm { return &fsm{machine: state.New(), changed: make(chan struct{})} }

// applied is what Raft's future gives the leader.
type applied struct {
	result state.Result
	err    error
}

// Apply carries out one log entry. An entry that cannot be decoded is refused like any other: it is the same
// bytes on every node.
func (f *fsm) Apply(l *raft.Log) any {
	c := &proto.Command{}
	if err := pb.Unmarshal(l.Data, c); err != nil {
		c = nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	res, err := f.machine.Apply(c)
	f.index = l.Index
	f.broadcast()
	return applied{res, err}
}

func (f *fsm) broadcast() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Snapshot takes an image; Persist encodes it while commands go on.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return snapshot{f.machine.Image(), f.index}, nil
}

// Restore replaces the state by a snapshot's.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxSnapshot))
	if err != nil {
		return err
	}
	if len(b) < 8 {
		return fmt.Errorf("restore snapshot: damaged: %d bytes", len(b))
	}
	m := state.New()
	if err := m.Restore(b[8:]); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.machine, f.index = m, binary.BigEndian.Uint64(b)
	f.broadcast()
	return nil
}

// snapshot is what a snapshot's file is made of.
type snapshot struct {
	image state.Image
	index uint64
}

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	b, err := s.image.Append(binary.BigEndian.AppendUint64(nil, s.index))
	if err == nil {
		_, err = sink.Write(b)
	}
	if err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (s snapshot) Release() {}

// next returns a channel that is closed at the next change, and the index of the last command that is in.
func (f *fsm) next() (<-chan struct{}, uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.changed, f.index
}

// read looks at the machine, which look must not keep. The values that views hand out stay as they are.
func read[T any](f *fsm, look func(*state.Machine) T) T {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return look(f.machine)
}

func (f *fsm) view() sched.View { return read(f, sched.Look) }

func (f *fsm) removed(id string) bool {
	return read(f, func(m *state.Machine) bool { return m.Removed(id) })
}

func (f *fsm) node(id string) *proto.Node {
	return read(f, func(m *state.Machine) *proto.Node { return m.Node(id) })
}
