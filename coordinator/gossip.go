package coordinator

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"lorad/coordinator/sched"
	"lorad/proto"
	"lorad/transport"
)

const (
	gossipTimeout = 2 * time.Second // of a stream
	leaveTimeout  = 500 * time.Millisecond
	// vouchedFor is how long a node that answered a ping is alive although gossip calls it dead: it takes a moment to contradict what others said of it.
	vouchedFor = 3 * time.Second
	// newcomerGrace is how long after start a node that was never seen is called unknown and not dead.
	newcomerGrace = 4 * time.Second
)

// gossip is who is alive, as memberlist says and as pings correct it.
type gossip struct {
	self  string
	meta  []byte
	clock func() time.Time
	began time.Time
	list  *memberlist.Memberlist
	keys  *memberlist.Keyring

	mu      sync.Mutex
	seen    map[string]sighting  // by node id
	silent  map[string]bool      // did not answer a ping; dead until it does
	hearsay map[string]bool      // dead, as others say: this node has not asked it
	vouched map[string]time.Time // dead, as others said, but it answered: alive until then
	changed chan struct{}        // closed at the next change
}

// sighting is what gossip last said of a node.
type sighting struct {
	addr  string // where it listens
	boot  string // differs after a restart
	alive bool
	since time.Time
}

func openGossip(cfg Config, now func() time.Time) (*gossip, error) {
	began := now()
	g := &gossip{
		self: cfg.Credentials.Node.Id, clock: now, began: began,
		seen: map[string]sighting{}, silent: map[string]bool{}, hearsay: map[string]bool{}, vouched: map[string]time.Time{}, changed: make(chan struct{}),
	}
	g.meta = []byte(cfg.Mux.Advertise() + " " + g.boot())
	key := cfg.Credentials.gossipKey().key
	var err error
	if g.keys, err = memberlist.NewKeyring(nil, key); err != nil {
		return nil, err
	}
	tr := transport.NewGossip(cfg.Mux, cfg.Dialer)
	list, err := memberlist.Create(g.config(cfg, tr))
	if err != nil {
		tr.Shutdown()
		return nil, err
	}
	g.list = list
	return g, nil
}

// config is memberlist's, a little quicker than for a LAN with its UDP: packets here never get lost on the way.
func (g *gossip) config(cfg Config, tr *transport.GossipTransport) *memberlist.Config {
	m := memberlist.DefaultLANConfig()
	m.Name, m.Label, m.Keyring = g.self, cfg.Credentials.ClusterID, g.keys
	m.Transport, m.Delegate, m.Events = tr, g, g
	m.AdvertiseAddr, m.BindAddr = "", ""
	m.Logger, m.LogOutput = gossipLog(cfg.Log), nil
	m.TCPTimeout, m.UDPBufferSize = gossipTimeout, 16<<10
	m.ProbeInterval, m.ProbeTimeout, m.SuspicionMult = 500*time.Millisecond, 400*time.Millisecond, 6
	m.GossipInterval, m.PushPullInterval = 100*time.Millisecond, 15*time.Second
	m.DeadNodeReclaimTime = time.Millisecond // a node that comes back on another port is the same node
	m.DisableTcpPings = true                 // all packets go over TCP already
	return m
}

// NodeMeta is what the others are told of this node. With the methods below it makes g a memberlist.Delegate.
func (g *gossip) NodeMeta(int) []byte             { return g.meta }
func (g *gossip) NotifyMsg([]byte)                {}
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }
func (g *gossip) LocalState(bool) []byte          { return nil }
func (g *gossip) MergeRemoteState([]byte, bool)   {}
func (g *gossip) NotifyJoin(n *memberlist.Node)   { g.sight(n, true) }
func (g *gossip) NotifyLeave(n *memberlist.Node)  { g.sight(n, false) }
func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.sight(n, true) }
func (g *gossip) wait() <-chan struct{}           { g.mu.Lock(); defer g.mu.Unlock(); return g.changed }
func (g *gossip) join(addr string)                { g.list.Join([]string{addr}) } // its log says what went wrong
func (g *gossip) lookup(id string) (sighting, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.seen[id]
	return s, ok
}

// boot is how the others know this process of the node from the one before.
func (g *gossip) boot() string { return g.began.Format(time.RFC3339Nano) }

func (g *gossip) sight(n *memberlist.Node, alive bool) {
	addr, boot, _ := strings.Cut(string(n.Meta), " ")
	g.mu.Lock()
	defer g.mu.Unlock()
	old, known := g.seen[n.Name]
	if known && old.alive == alive && old.boot == boot {
		return
	}
	g.seen[n.Name] = sighting{addr, boot, alive, g.clock()}
	g.hearsay[n.Name] = !alive && n.State != memberlist.StateLeft && !g.silent[n.Name]
	delete(g.silent, n.Name)
	delete(g.vouched, n.Name)
	g.broadcast()
}

func (g *gossip) broadcast() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// alive reports whether the node is known to be alive.
func (g *gossip) alive(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return id == g.self || g.lives(id)
}

func (g *gossip) lives(id string) bool {
	return g.seen[id].alive && !g.silent[id] || g.clock().Before(g.vouched[id])
}

// addr is where a live node listens, or "".
func (g *gossip) addr(id string) string {
	if s, _ := g.lookup(id); s.alive {
		return s.addr
	}
	return ""
}

// pinged notes whether a node answered a ping: the word of the node itself is worth more than gossip's.
func (g *gossip) pinged(id string, answered bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.seen[id]
	told := g.hearsay[id]
	delete(g.hearsay, id)
	switch {
	case told && answered:
		g.vouched[id] = g.clock().Add(vouchedFor)
	case !answered:
		delete(g.vouched, id) // it has died since
	}
	if g.silent[id] == !answered || !s.alive {
		return
	}
	if answered {
		delete(g.silent, id)
	} else {
		g.silent[id] = true
	}
	s.since = g.clock()
	g.seen[id] = s
	g.broadcast()
}

// hearsayOf lists those of the nodes that are dead by the word of others alone. After a network was parted, the two sides tell each other of
// their dead, who are not.
func (g *gossip) hearsayOf(ids []string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !g.hearsay[id] })
}

// silentNodes lists the nodes that gossip calls alive and that did not answer.
func (g *gossip) silentNodes() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []string
	for id := range g.silent {
		ids = append(ids, id)
	}
	return ids
}

// liveness is what the scheduler is told. A node that was never seen is left out until it had time to show itself, and
// so is one that has not yet recorded where it listens now: the other members could not reach it.
func (g *gossip) liveness(nodes []*proto.Node) map[string]sched.Liveness {
	g.mu.Lock()
	defer g.mu.Unlock()
	live := map[string]sched.Liveness{}
	for _, n := range nodes {
		id := n.Id
		s, known := g.seen[id]
		switch {
		case known && s.alive && s.addr != n.Addr:
		case id == g.self:
			live[id] = sched.Liveness{Alive: true, Since: g.began.UnixMilli(), Boot: g.boot()}
		case known:
			live[id] = sched.Liveness{Alive: g.lives(id), Since: s.since.UnixMilli(), Boot: s.boot}
		case g.clock().Sub(g.began) > newcomerGrace:
			live[id] = sched.Liveness{Since: g.began.Add(newcomerGrace).UnixMilli()}
		}
	}
	return live
}

// elector is what the choice of voters is told: whether the node is up, wherever it listens, and since when. Of a node
// that was never seen nothing is known until it had time to show itself.
func (g *gossip) elector(id string) (sched.Liveness, bool) {
	s, known := g.lookup(id)
	switch {
	case id == g.self:
		return sched.Liveness{Alive: true, Since: g.began.UnixMilli()}, true
	case known:
		return sched.Liveness{Alive: g.alive(id), Since: s.since.UnixMilli()}, true
	}
	return sched.Liveness{Since: g.began.Add(newcomerGrace).UnixMilli()}, g.clock().Sub(g.began) > newcomerGrace
}

// close says goodbye and stops.
func (g *gossip) close(log *slog.Logger) {
	if err := g.list.Leave(leaveTimeout); err != nil {
		log.Debug("goodbye was not heard", "err", err)
	}
	if err := g.list.Shutdown(); err != nil {
		log.Debug("gossip did not shut down cleanly", "err", err)
	}
}

// keepTouch looks for nodes that should be there and are not: at start, and after a network was parted. It also asks
// those again that were silent.
func (c *Coordinator) keepTouch(ctx context.Context) {
	for {
		if c.leader() == "" {
			c.askKeys(ctx)
		}
		each(c.missing(), c.gossip.join)
		c.ping(ctx, c.gossip.silentNodes())
		if sleep(ctx, time.Second) != nil {
			return
		}
	}
}

// missing lists where the nodes should be that gossip does not know to be alive. A node without a state yet goes by
// what it was told when it joined.
func (c *Coordinator) missing() []string {
	var addrs []string
	nodes := c.Nodes()
	for _, n := range nodes {
		if _, known := c.gossip.lookup(n.Id); n.Id != c.id && !(known && c.gossip.addr(n.Id) != "") {
			addrs = append(addrs, n.Addr)
		}
	}
	if len(nodes) <= 1 && c.gossip.list.NumMembers() <= 1 {
		addrs = append(addrs, c.creds.seeds()...)
	}
	return addrs
}
