package coordinator

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/proto"
)

// A cluster in a bubble of virtual time (testing/synctest): hours of it pass in seconds. Real are Raft, the state, the
// leader's loop with scheduler and choice of voters, forwarding of commands with its retries, and the services that
// people call. Not real are what would have the bubble wait for the kernel: connections (Raft's own in-memory transport,
// and calls from node to node, cut and joined together), disks (Raft's in-memory stores, which survive a crash whole)
// and gossip (who is seen alive is told by the test, suspicion time included).
type bubble struct {
	t     *testing.T
	nodes map[string]*cell
	log   slog.Handler

	mu  sync.Mutex
	cut map[[2]string]bool // pairs that do not reach each other
	bad *rand.Rand         // of links that lose one reply in ten; nil: they do not
}

// cell is a node in a bubble. Its stores outlive its crashes.
type cell struct {
	*Coordinator
	b     *bubble
	id    string
	store *raft.InmemStore
	snaps raft.SnapshotStore
	line  *raft.InmemTransport
	boots int
	up    bool
	ctl   control
}

const suspicion = 3 * time.Second // that gossip takes to call a node dead

// newBubble starts n nodes that know each other, all of which may vote. The first has made the cluster.
func newBubble(t *testing.T, n int) *bubble {
	var out io.Writer = io.Discard
	if testing.Verbose() && os.Getenv("BUBBLE_LOG") != "" {
		out = os.Stderr
	}
	b := &bubble{t: t, nodes: map[string]*cell{}, cut: map[[2]string]bool{}, log: slog.NewTextHandler(out, nil)}
	t.Cleanup(b.close)
	for i := range n {
		id := fmt.Sprintf("node%d", i)
		c := &cell{b: b, id: id, store: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore()}
		b.nodes[id] = c
		if i == 0 {
			alone := raft.Configuration{Servers: []raft.Server{server(id)}}
			_, tr := raft.NewInmemTransport(raft.ServerAddress(id))
			if err := raft.BootstrapCluster(b.skeleton(id).raftConfig(), c.store, c.store, c.snaps, tr, alone); err != nil {
				t.Fatal(err)
			}
		}
		c.start()
	}
	first := b.nodes["node0"]
	b.until("the first leader", time.Minute, func() bool { return first.raft.State() == raft.Leader })
	for _, c := range b.all() {
		if _, err := first.do(t.Context(), &proto.Command{Do: &proto.Command_PutNode{PutNode: &proto.PutNode{Node: recorded(c.id)}}}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func recorded(id string) *proto.Node {
	return &proto.Node{Id: id, Name: id, Addr: id + ":1", Voter: true, Version: "v1", Engine: "cpu", Cores: 2}
}

// prepare makes a run of 40 steps out of any job.
func (b *bubble) prepare(ctx context.Context, r *proto.SubmitRequest) (*proto.Spec, error) {
	spec, err := prepare(ctx, r)
	spec.Steps = 40
	return spec, err
}

// skeleton is a coordinator without its connections.
func (b *bubble) skeleton(id string) *Coordinator {
	c := &Coordinator{
		id: id, boot: id, fsm: newFSM(), now: time.Now, log: slog.New(b.log).With("node", id), outcast: make(chan struct{}),
		creds: &Credentials{Node: &proto.Node{Id: id, Voter: true}, ClusterID: "bubble"},
		facts: recorded(id), cfg: Config{Prepare: b.prepare, ReplaceVoterAfter: time.Minute},
	}
	c.gossip = &gossip{
		self: id, clock: time.Now, began: time.Now(), seen: map[string]sighting{}, silent: map[string]bool{}, hearsay: map[string]bool{}, vouched: map[string]time.Time{},
		changed: make(chan struct{}),
	}
	return c
}

// start boots the node on what its stores hold.
func (c *cell) start() {
	k := c.b.skeleton(c.id)
	k.ctx, k.stop = context.WithCancel(context.Background())
	k.near = &wires{c.b, c.id}
	_, line := raft.NewInmemTransport(raft.ServerAddress(c.id))
	k.elect = newElectable(line)
	k.wire = &frugal{relay: relay{k.elect}}
	var err error
	if k.raft, err = raft.NewRaft(c.b.conf(k), k.fsm, c.store, c.store, c.snaps, k.wire); err != nil {
		c.b.t.Fatal(err)
	}
	c.b.mu.Lock()
	c.boots++
	c.Coordinator, c.line, c.ctl, c.up = k, line, control{Coordinator: k}, true
	c.b.mu.Unlock()
	k.work.Go(func() { k.lead(k.ctx) })
	k.work.Go(func() {
		for sleep(k.ctx, lonely/4) == nil {
			k.settleTimes()
		}
	})
	c.b.rewire()
}

// conf is a node's own, but for snapshots every now and then instead of every two thousand entries.
func (b *bubble) conf(k *Coordinator) *raft.Config {
	conf := k.raftConfig()
	conf.SnapshotThreshold, conf.SnapshotInterval, conf.TrailingLogs = 200, 20*time.Second, 50
	return conf
}

// crash ends the node without a word to anybody. What Raft had stored is there when it starts again.
func (c *cell) crash() {
	c.b.mu.Lock()
	c.up = false
	c.b.mu.Unlock()
	c.b.rewire()
	c.stop()
	c.work.Wait()
	if err := c.raft.Shutdown().Error(); err != nil {
		c.b.t.Error(err)
	}
	c.elect.Close()
}

// all lists the nodes by name.
func (b *bubble) all() []*cell {
	var list []*cell
	for _, id := range slices.Sorted(maps.Keys(b.nodes)) {
		list = append(list, b.nodes[id])
	}
	return list
}

func (b *bubble) running() []*cell {
	return slices.DeleteFunc(b.all(), func(c *cell) bool { return !c.alive() })
}

// reaches reports whether two nodes that are up are connected.
func (b *bubble) reaches(x, y string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodes[x] != nil && b.nodes[y] != nil && b.nodes[x].up && b.nodes[y].up && !b.cut[pair(x, y)]
}

func pair(x, y string) [2]string { return [2]string{min(x, y), max(x, y)} }

// part lets nodes reach each other only within their side.
func (b *bubble) part(side func(id string) int) {
	b.mu.Lock()
	for _, x := range b.all() {
		for _, y := range b.all() {
			b.cut[pair(x.id, y.id)] = side(x.id) != side(y.id)
		}
	}
	b.mu.Unlock()
	b.rewire()
}

// rewire makes Raft's transports and everybody's gossip what reaches says. The dead are seen as such after a while.
func (b *bubble) rewire() {
	for _, x := range b.running() {
		for _, y := range b.all() {
			k, from := x.now()
			_, to := y.now()
			if x == y || to == nil {
				continue
			}
			if b.reaches(x.id, y.id) {
				from.Connect(raft.ServerAddress(y.id), to)
				y.seenBy(k, true)
				continue
			}
			from.Disconnect(raft.ServerAddress(y.id))
			k.work.Go(func() {
				if sleep(k.ctx, suspicion) == nil && !b.reaches(x.id, y.id) {
					y.seenBy(k, false)
				}
			})
		}
	}
}

// now is the node's coordinator of this boot, and its end of the network.
func (c *cell) now() (*Coordinator, *raft.InmemTransport) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return c.Coordinator, c.line
}

func (c *cell) alive() bool {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return c.up
}

// seenBy tells another node's gossip of this one.
func (c *cell) seenBy(k *Coordinator, alive bool) {
	c.b.mu.Lock()
	meta := fmt.Sprintf("%s:1 %d", c.id, c.boots)
	c.b.mu.Unlock()
	k.gossip.sight(&memberlist.Node{Name: c.id, Meta: []byte(meta)}, alive)
}

// wires are calls from one node to others in a bubble.
type wires struct {
	b    *bubble
	from string
}

var errCut = status.Error(codes.Unavailable, "the link is cut")

func (w *wires) apply(ctx context.Context, leader string, cmd *proto.Command) (*proto.ApplyReply, error) {
	return across(w, leader, func(c *Coordinator) (*proto.ApplyReply, error) {
		reply, err := c.propose(cmd)
		return reply, coordination{c: c}.passable(err)
	})
}

func (w *wires) readIndex(ctx context.Context, leader string) (uint64, error) {
	return across(w, leader, func(c *Coordinator) (uint64, error) {
		index, err := c.confirm()
		return index, coordination{c: c}.passable(err)
	})
}

func (w *wires) answers(_ context.Context, id string) bool { return w.b.reaches(w.from, id) }

// across calls a node, if the link is there on the way and on the way back: a reply may be lost.
func across[T any](w *wires, to string, call func(*Coordinator) (T, error)) (T, error) {
	var none T
	time.Sleep(time.Millisecond)
	if !w.b.reaches(w.from, to) {
		return none, errCut
	}
	w.b.mu.Lock()
	target := w.b.nodes[to].Coordinator
	w.b.mu.Unlock()
	reply, err := call(target)
	time.Sleep(time.Millisecond)
	if !w.b.reaches(w.from, to) || w.b.loses() {
		return none, errCut
	}
	return reply, err
}

func (b *bubble) loses() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bad != nil && b.bad.IntN(10) == 0
}

// until waits in virtual time.
func (b *bubble) until(what string, most time.Duration, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(most); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("never came within %s: %s", most, what)
		}
	}
}

// leader is who leads and can get something agreed on, or nil.
func (b *bubble) leader() *cell {
	for _, c := range b.running() {
		if k, _ := c.now(); k.raft.State() == raft.Leader && k.raft.VerifyLeader().Error() == nil {
			return c
		}
	}
	return nil
}

// close ends everything: a bubble must not be left with anybody in it.
func (b *bubble) close() {
	for _, c := range b.running() {
		c.crash()
	}
}
