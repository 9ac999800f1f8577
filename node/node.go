// Package node is the shell around one member's work: it watches what the coordinator decided, drives the engine and
// the all-reduce, keeps checkpoints and reports what it saw.
//
// Three parts that know nothing of each other do the thinking: package step decides what to do next, package recipe
// knows what a job means, package replica is the state. A worker (one goroutine per run) carries actions of the first
// out on the other two and feeds the results back. Nothing here decides anything about membership: the coordinator
// does, through leases.
//
// Node never imports the coordinator; it asks for the few things it needs (Control, Peers).
package node

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"lorad/allreduce"
	"lorad/node/blob"
	"lorad/proto"
)

// Control is what a node needs of the coordinator on its own machine.
type Control interface {
	// Changed returns a channel that is closed at the next change of the replicated state.
	Changed() <-chan struct{}
	// Runs returns all runs without their ledgers.
	Runs() []*proto.Run
	// Ledger returns the step records of a run from step `after`+1 on.
	Ledger(run string, after uint64) []*proto.StepRecord
	// Nodes returns the members of the cluster.
	Nodes() []*proto.Node
	// Report hands a report to the leader, through elections, until it is in the log or ctx ends. A refusal is
	// an error.
	Report(ctx context.Context, r *proto.Report) error
}

// Peers gives clients of other nodes by their id.
type Peers interface {
	Peer(ctx context.Context, id string) (proto.PeerClient, error)
}

// Rings builds the ring of one generation; the group is closed by whoever asked for it.
type Rings interface {
	Connect(ctx context.Context, run string, generation uint64, members []string, self string) (*allreduce.Group, error)
}

// Config is what a node is made of.
type Config struct {
	ID       string
	Dir      string // state directory: input blobs, checkpoints of runs whose home is elsewhere
	Threads  int    // of the engine; 0 = all cores
	Alone    bool   // no other node can ever do what this one cannot
	Embedded fs.FS  // the model inside the binary
	GPUs     GPUs   // of this machine; nil: it has none
	Control  Control
	Peers    Peers
	Rings    Rings
	Log      *slog.Logger
}

// Node runs the members' side of every run that this machine is leased to.
type Node struct {
	proto.UnimplementedPeerServer
	cfg   Config
	blobs *blob.Store

	memory   memoryLimit
	free     func() int64 // bytes of memory that are left
	oomKills func() (boot string, kills int64)
	again    chan struct{} // a worker has ended: look at the runs once more

	mu       sync.Mutex
	workers  map[string]*worker // by run id
	ended    map[string]uint64  // by run id: the generation in which this node's work ended
	unfit    map[string]bool    // by run id: this node cannot do its work
	said     map[string]string  // by run id: what was last said of why this node takes no part
	prepared prepared
}

// New opens the node's store. Run starts it.
func New(cfg Config) (*Node, error) {
	blobs, err := blob.Open(filepath.Join(cfg.Dir, "blobs"))
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, blobs: blobs, free: free, oomKills: oomKills, again: make(chan struct{}, 1),
		workers: map[string]*worker{}, ended: map[string]uint64{}, unfit: map[string]bool{}, said: map[string]string{},
	}
	if cfg.Embedded != nil {
		if err := n.registerEmbedded(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// registerEmbedded makes the files of the built-in model known by hash, so that they are never fetched.
func (n *Node) registerEmbedded() error {
	p := preparation{store: n.blobs, embedded: n.cfg.Embedded}
	return p.base(EmbeddedBase)
}

// Run keeps a worker for every run leased to this node until ctx ends, then waits for them.
func (n *Node) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	for {
		changed := n.cfg.Control.Changed() // before looking, so that nothing is missed
		for _, r := range n.cfg.Control.Runs() {
			n.follow(ctx, &workers, r)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-n.again:
		}
	}
}

// follow starts a worker for a run that is leased to this node, or tells the one at work what changed. A worker whose
// work has ended is not started again in the same generation: its machine has said all it had to say.
func (n *Node) follow(ctx context.Context, wg *sync.WaitGroup, r *proto.Run) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := r.Spec.Run
	if w := n.workers[id]; w != nil {
		w.tell(r)
		return
	}
	if !n.wanted(r) && !n.volunteers(r) {
		return
	}
	w := newWorker(n, r)
	n.workers[id] = w
	wg.Add(1)
	go func() {
		defer wg.Done()
		generation := w.run(ctx)
		n.end(id, generation)
	}()
}

// wanted says whether a run without a worker here needs one.
func (n *Node) wanted(r *proto.Run) bool {
	return leased(r, n.cfg.ID) && r.Lease.Generation > n.ended[r.Spec.Run]
}

func (n *Node) end(run string, generation uint64) {
	n.mu.Lock()
	delete(n.workers, run)
	n.ended[run] = generation
	n.mu.Unlock()
	select {
	case n.again <- struct{}{}:
	default:
	}
}

// leased says whether the run wants work from the node under a generation that still stands.
func leased(r *proto.Run, id string) bool {
	if r.Phase != proto.Phase_RUNNING && r.Phase != proto.Phase_STOPPING {
		return false
	}
	return slices.Contains(r.GetLease().GetMembers(), id)
}

func (n *Node) worker(run string) *worker {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.workers[run]
}

// committed is the last step of a run in the ledger.
func (n *Node) committed(run string) uint64 {
	for _, r := range n.cfg.Control.Runs() {
		if r.Spec.Run == run {
			return r.Step
		}
	}
	return 0
}

// name is how a node is called in messages to people.
func (n *Node) name(id string) string {
	for _, p := range n.cfg.Control.Nodes() {
		if p.Id == id && p.Name != "" {
			return fmt.Sprintf("%s (%.8s)", p.Name, id)
		}
	}
	return id
}
