package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"lorad/coordinator/state"
	"lorad/proto"
	"lorad/transport"
)

// Raft's times. An election takes between one and two heartbeat timeouts plus a round trip: about a second. Shorter
// ones would hold elections whenever training keeps all cores busy.
const (
	heartbeat         = 700 * time.Millisecond
	leaderLease       = 500 * time.Millisecond
	commitTimeout     = 50 * time.Millisecond // after which followers learn what is committed
	raftTimeout       = 5 * time.Second       // of one exchange
	snapshotInterval  = 30 * time.Second
	snapshotThreshold = 2048 // log entries
	trailingLogs      = 1024
	snapshotsKept     = 2
)

// Config is what a coordinator is made of. Dir, Credentials, Node, Mux, Dialer and Log are needed.
type Config struct {
	Dir         string // state directory, mode 0700
	Credentials *Credentials
	Node        *proto.Node // facts: name, cores, memory, engine, version; id, address and role are filled in
	Mux         *transport.Mux
	Dialer      *transport.Dialer
	Local       net.Listener // of transport.ListenLocal, for the command line; closed by Close
	Log         *slog.Logger
	Now         func() time.Time // nil: the real clock

	// Prepare turns a user's job into a run: it reads, hashes and stores the inputs, and fills in everything but
	// home node and time of submission. It is called on the node that was asked, which becomes the home node. nil: this
	// node is a witness, which takes no runs.
	Prepare func(ctx context.Context, req *proto.SubmitRequest) (*proto.Spec, error)
	// Audit counts the ledger of a run against the plan that its inputs make. nil: this node does not audit.
	Audit func(ctx context.Context, run *proto.Run) (*proto.AuditReply, error)
	// GPUs says how this machine's GPUs are now, for whoever lists the nodes. nil: it has none.
	GPUs func() []*proto.Gpu
	// ReplaceVoterAfter is how long a voter is down before another node votes in its place. 0: three minutes.
	ReplaceVoterAfter time.Duration
	// OnRemoved is told of each node that was removed, once, after its connections were cut. It must not block.
	OnRemoved func(id string)
	// Peer serves FetchBlob and FetchState. Ping is the coordinator's own.
	Peer proto.PeerServer
	// Workspace is the folder that jobs of people elsewhere read and write in, and nowhere else. "": there are no such jobs.
	Workspace string
	// CertLifetime is how long the certificates are valid that this node signs. 0: ca.NodeLifetime.
	CertLifetime time.Duration
}

// Coordinator is this node's part in the cluster. Safe for concurrent use.
type Coordinator struct {
	id     string
	boot   string // of this process
	cfg    Config
	creds  *Credentials
	facts  *proto.Node
	log    *slog.Logger
	now    func() time.Time
	fsm    *fsm
	raft   *raft.Raft
	elect  *electable
	gossip *gossip
	peers  *peers
	near   neighbours
	wire   *frugal // Raft's
	few    int     // non-voters that are treated like voters
	server *grpc.Server
	web    *http.Server

	renewals gaps
	release  []func() // what Close undoes, the last first

	ctx     context.Context // ends when Close begins
	stop    context.CancelFunc
	work    sync.WaitGroup
	closing sync.Once

	doubting atomic.Bool // whether the leader is alive

	broken atomic.Bool // Raft's log cannot be written, and Raft hangs, by intention
	failed chan error  // why

	outcast     chan struct{} // closed when the cluster is known to have gone on without this node
	outcastWhy  error
	outcastOnce sync.Once
}

// Open starts the coordinator. It returns before the node has found the others: see Ready.
func Open(cfg Config) (*Coordinator, error) {
	c := &Coordinator{
		id: cfg.Credentials.Node.Id, boot: rand.Text(), cfg: cfg, creds: cfg.Credentials, fsm: newFSM(), now: cfg.Now,
		failed: make(chan error, 1), few: fewQuiet, outcast: make(chan struct{}),
	}
	c.log = cfg.Log.With("node", c.id)
	if c.now == nil {
		c.now = time.Now
	}
	if c.cfg.Peer == nil {
		c.cfg.Peer = proto.UnimplementedPeerServer{}
	}
	c.facts = withID(cfg.Node, c.id, cfg.Mux.Advertise())
	c.facts.Voter, c.facts.Witness = c.creds.Node.Voter, c.creds.Node.Witness
	c.ctx, c.stop = context.WithCancel(context.Background())
	for _, open := range []func() error{c.openPeers, c.openGossip, c.openRaft, c.openServer} {
		if err := open(); err != nil {
			c.Close()
			return nil, fmt.Errorf("start coordinator: %w", err)
		}
	}
	for _, f := range []func(context.Context){c.lead, c.keepTouch, c.announce, c.housekeep, c.watchStanding, c.keepFresh, c.rekey} {
		c.work.Go(func() { f(c.ctx) })
	}
	return c, nil
}

func (c *Coordinator) openPeers() error {
	removed := c.fsm.removed
	c.creds.removed.Store(&removed)
	c.peers = newPeers(c.cfg.Dialer, c.addr)
	c.near = c.peers
	c.undo(c.peers.close)
	return nil
}

func (c *Coordinator) openGossip() (err error) {
	if c.gossip, err = openGossip(c.cfg, c.now); err != nil {
		return err
	}
	c.undo(func() { c.gossip.close(c.log) })
	return nil
}

// openRaft starts this node's Raft, over its log on disk. The very first node of a cluster makes itself the only voter.
func (c *Coordinator) openRaft() error {
	store, err := c.openDisk()
	if err != nil {
		return err
	}
	logger := raftLog(c.log)
	snaps, err := raft.NewFileSnapshotStoreWithLogger(c.cfg.Dir, snapshotsKept, logger)
	if err != nil {
		return err
	}
	tr := newElectable(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: addressOf(c.addr), Logger: logger, MaxPool: 3, Timeout: raftTimeout,
		Stream: transport.NewRaftLayer(c.cfg.Mux, c.cfg.Dialer),
	}))
	c.elect = tr
	c.undo(func() { tr.Close() })
	c.wire = &frugal{relay: relay{tr}}
	if err := c.bootstrap(store, snaps, tr); err != nil {
		return err
	}
	cached, err := raft.NewLogCache(trailingLogs/2, store) // all followers are sent the same entries
	if err != nil {
		return err
	}
	if c.raft, err = raft.NewRaft(c.raftConfig(), c.fsm, cached, store, snaps, c.wire); err != nil {
		return err
	}
	c.undo(c.abdicate)
	return c.hurry()
}

// hurry has the only voter elect itself at once instead of waiting for the heartbeat of a leader that cannot be.
// Raft looks at once when a reload shortens its timeout, by however little.
func (c *Coordinator) hurry() error {
	if !slices.Equal(c.voterIDs(), []string{c.id}) {
		return nil
	}
	r := c.raft.ReloadableConfig()
	r.HeartbeatTimeout -= time.Millisecond
	return c.raft.ReloadConfig(r)
}

func (c *Coordinator) raftConfig() *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID, r.Logger = raft.ServerID(c.id), raftLog(c.log)
	r.HeartbeatTimeout, r.ElectionTimeout, r.LeaderLeaseTimeout, r.CommitTimeout = heartbeat, heartbeat, leaderLease, commitTimeout
	r.SnapshotInterval, r.SnapshotThreshold, r.TrailingLogs = snapshotInterval, snapshotThreshold, trailingLogs
	r.ShutdownOnRemove = false // Close is what shuts it down
	return r
}

func (c *Coordinator) bootstrap(store raftDisk, snaps raft.SnapshotStore, tr raft.Transport) error {
	old, err := raft.HasExistingState(store, store, snaps)
	if err != nil || old || len(c.creds.sealed) == 0 {
		return err
	}
	return raft.BootstrapCluster(c.raftConfig(), store, store, snaps, tr, raft.Configuration{Servers: []raft.Server{server(c.id)}})
}

// server is a node in Raft's configuration. Its id stands there for its address too: where it listens is asked at every
// dial (addressOf), so a node that moves changes nothing that is replicated. Raft 1.7 writes a changed address while its
// replication reads the same record without the lock.
func server(id string) raft.Server {
	return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)}
}

// abdicate hands leadership over, so that the others need no election, and stops Raft.
func (c *Coordinator) abdicate() {
	if c.raft.State() == raft.Leader {
		if err := c.raft.LeadershipTransfer().Error(); err != nil {
			c.log.Debug("leadership was not handed over", "err", err)
		}
	}
	if err := c.raft.Shutdown().Error(); err != nil {
		c.log.Warn("raft did not shut down cleanly", "err", err)
	}
}

// addressOf lets Raft find a node where it is now and not where it was when it was added.
type addressOf func(id string) string

func (f addressOf) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if addr := f(string(id)); addr != "" {
		return raft.ServerAddress(addr), nil
	}
	return "", errors.New("not seen yet")
}

// addr is where a node listens: where gossip sees it, or else where it was recorded; "" if neither.
func (c *Coordinator) addr(id string) string {
	if id == c.id {
		return c.cfg.Mux.Advertise()
	}
	if addr := c.gossip.addr(id); addr != "" {
		return addr
	}
	return c.fsm.node(id).GetAddr()
}

func (c *Coordinator) undo(f func()) { c.release = append(c.release, f) }

// Close leaves the cluster politely, so that the others need not find out: leadership is handed over, gossip says
// goodbye. The node stays a member and may come back. Mux and Dialer stay open: they are the caller's.
func (c *Coordinator) Close() error {
	c.closing.Do(func() {
		c.stop()
		if c.broken.Load() {
			return // everything may be waiting for Raft; the process ends
		}
		if c.server != nil {
			c.server.Stop() // before waiting: calls may be waiting for changes that do not come any more
			c.web.Close()
		}
		c.work.Wait()
		for i := len(c.release) - 1; i >= 0; i-- {
			c.release[i]()
		}
	})
	return nil
}

// Ready returns when this node is in the cluster's records as it is now: runs can then be submitted here.
func (c *Coordinator) Ready(ctx context.Context) error {
	for {
		changed, _ := c.fsm.next()
		if c.recorded() {
			return nil
		}
		select {
		case <-changed:
		case <-c.outcast:
			return c.outcastWhy
		case <-ctx.Done():
			return c.noQuorum(ctx, errNoLeader)
		}
	}
}

// ID is this node's id.
func (c *Coordinator) ID() string { return c.id }

// Changed returns a channel that is closed at the next change of the replicated state.
func (c *Coordinator) Changed() <-chan struct{} {
	changed, _ := c.fsm.next()
	return changed
}

// Nodes returns the recorded nodes, sorted by id. They are shared: read only.
func (c *Coordinator) Nodes() []*proto.Node { return read(c.fsm, (*state.Machine).Nodes) }

// Run returns one run with its ledger by its exact id, or nil. It is shared: read only.
func (c *Coordinator) Run(id string) *proto.Run {
	return read(c.fsm, func(m *state.Machine) *proto.Run { return m.Run(id) })
}

// Runs returns all runs without their ledgers, the oldest first. What they point to is shared: read only.
func (c *Coordinator) Runs() []*proto.Run {
	runs := read(c.fsm, (*state.Machine).Runs)
	for i, r := range runs {
		runs[i] = state.Header(r)
	}
	return runs
}

// Ledger returns the records of a run's steps after `after`. They are shared: read only.
func (c *Coordinator) Ledger(run string, after uint64) []*proto.StepRecord {
	r := c.Run(run)
	if r == nil || after >= r.Step {
		return nil
	}
	return state.Ledger(r)[after:]
}

// Report hands a member's report to the leader and returns when it is in the log and in this node's replica. It goes
// on through elections until ctx ends; a *state.Error is final. Its kind is Stale if steps were left out because their
// generation is over.
func (c *Coordinator) Report(ctx context.Context, p *proto.Report) error {
	if p.Outcome == proto.Outcome_READY || p.Outcome == proto.Outcome_UNFIT {
		p.Boot = c.gossip.boot()
	}
	if p.Outcome == proto.Outcome_ABORTED && p.Suspect == c.leader() {
		c.doubt(p.Suspect) // the ring notices sooner than Raft
	}
	reply, err := c.apply(ctx, &proto.Command{Do: &proto.Command_Report{Report: p}})
	if err == nil && reply.Stale {
		text := fmt.Sprintf("report run %s: %s: generation %d is over, and its new steps were left out: do them under the new lease", p.Run, state.Stale, p.Generation)
		return &state.Error{Kind: state.Stale, Text: text}
	}
	return err
}

// Peer returns a client of another node.
func (c *Coordinator) Peer(_ context.Context, id string) (proto.PeerClient, error) {
	conn, err := c.peers.conn(id)
	if err != nil {
		return nil, err
	}
	return proto.NewPeerClient(conn), nil
}
