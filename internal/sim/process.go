package sim

import (
	"fmt"
	"slices"

	"lorad/coordinator/state"
	"lorad/proto"
)

// Times of the coordinator's shell.
const (
	retryPause     = 50 * ms
	forwardTimeout = 3 * second
	pingTimeout    = second
	newcomerGrace  = 4 * second
	gossipEvery    = 500 * ms
	joinLeast      = 4
	againAfter     = 5 * second
)

// node is one machine: a disk that outlives its processes, and a process that comes and goes.
type node struct {
	w     *World
	id    string
	index int
	skew  int64 // ms that its clock is ahead
	speed int64 // microseconds per micro-batch of mean size
	laden int64 // until when something else runs on it

	// on disk
	snapshot   []byte
	snapshotAt uint64
	disks      map[string]*disk // by run
	slowUntil  int64            // the disk is slow
	fullUntil  int64            // the disk has no room

	// the process
	boot    int // events of an earlier process are void
	up      bool
	began   int64
	frozen  bool
	thawed  []func() // came due while the process was stopped
	machine *state.Machine
	applied uint64
	waiting []waiter
	reign   *reign
	seen    map[string]*sighting
	workers map[string]*worker
	ended   map[string]uint64
	looking bool
}

// waiter wants to know when an entry is in the replica.
type waiter struct {
	index uint64
	do    func()
}

func newNode(w *World, i int) *node {
	n := &node{w: w, id: fmt.Sprintf("n%d", i+1), index: i, disks: map[string]*disk{}}
	n.skew = int64(w.rng.between(-300, 300))
	n.speed = w.rng.span(1*ms, 15*ms)
	if w.rng.percent(10) {
		n.speed *= 8
	}
	return n
}

const (
	meanTokens = 60
	burden     = 10 // times slower while something else runs
)

// pace is what a micro-batch of mean size takes now.
func (n *node) pace() int64 {
	d := n.speed/2 + n.w.rng.span(0, n.speed)
	if n.w.now < n.laden {
		return d * burden
	}
	return d
}

func (w *World) node(id string) *node {
	i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.id == id })
	return w.nodes[i]
}

// delay is how long a message or a wake-up takes: short, and now and then long, which also changes the order.
func (w *World) delay() int64 {
	switch p := w.rng.between(0, 99); {
	case p < 95:
		return w.rng.span(ms/10, 4*ms)
	case p < 99:
		return w.rng.span(4*ms, 80*ms)
	}
	return w.rng.span(80*ms, 1500*ms)
}

// clock is unix ms as the node's own clock has it.
func (n *node) clock() int64 { return epoch + n.w.now/ms + n.skew }

// after has f happen in this process, unless it dies first; a stopped process does it when it goes on.
func (n *node) after(d int64, f func()) {
	boot := n.boot
	n.w.after(d, func() { n.deliver(boot, f) })
}

func (n *node) deliver(boot int, f func()) {
	switch {
	case n.boot != boot || !n.up:
	case n.frozen:
		n.thawed = append(n.thawed, func() { n.deliver(boot, f) })
	default:
		f()
	}
}

// start begins a process. Its replica is what its last snapshot says until a leader tells it how far the log is
// committed, exactly as with hashicorp/raft.
func (n *node) start() {
	n.boot++
	n.up, n.frozen, n.thawed, n.reign, n.waiting, n.looking = true, false, nil, nil, nil, false
	n.began = n.w.now
	n.machine, n.applied = state.New(), 0
	n.seen, n.workers, n.ended = map[string]*sighting{}, map[string]*worker{}, map[string]uint64{}
	if n.snapshot != nil {
		n.install(n.snapshot, n.snapshotAt)
	}
	n.w.note(n.id, "starts at entry %d", n.applied)
	n.gossip()
	n.announce()
	n.look()
}

func (n *node) crash() {
	if !n.up {
		return
	}
	n.w.note(n.id, "dies")
	n.up, n.frozen, n.reign = false, false, nil
	n.boot++
	for _, u := range n.w.users {
		if k := n.workers[u.run]; k != nil {
			k.over = true
			k.leaveRing("its process died")
		}
	}
	n.workers = map[string]*worker{}
}

func (n *node) freeze() {
	if !n.up || n.frozen {
		return
	}
	n.w.note(n.id, "is stopped")
	n.frozen = true
	n.w.silence()
}

func (n *node) thaw() {
	if !n.up || !n.frozen {
		return
	}
	n.w.note(n.id, "goes on")
	n.frozen = false
	late := n.thawed
	n.thawed = nil
	for _, f := range late {
		n.w.after(n.w.rng.span(0, ms), f)
	}
}

// announce records the node, as a daemon does when it starts.
func (n *node) announce() {
	if n.machine.Node(n.id) != nil {
		return
	}
	c := &proto.Command{Do: &proto.Command_PutNode{PutNode: &proto.PutNode{Node: &proto.Node{
		Id: n.id, Name: n.id, Addr: n.id + ":1", Voter: true, Version: "v1",
	}}}}
	n.apply(c, always, func(*proto.ApplyReply, error) {})
}

func always() bool { return true }

// apply has the leader carry out a command and calls done when this node's replica has it too. It goes on through
// elections as long as alive says. A refusal is final.
func (n *node) apply(c *proto.Command, alive func() bool, done func(*proto.ApplyReply, error)) {
	if !alive() {
		return
	}
	settled := false
	retry := func() {
		if !settled {
			settled = true
			n.after(retryPause, func() { n.apply(c, alive, done) })
		}
	}
	answer := func(r *proto.ApplyReply, refusal error) {
		if settled {
			return
		}
		settled = true
		if refusal != nil {
			done(nil, refusal)
			return
		}
		n.conclude(r.Index, func() {
			if alive() {
				done(r, nil)
			}
		})
	}
	leader := n.w.log.leader
	switch {
	case n.reign != nil:
		n.propose(c, func(i uint64, res state.Result, refusal error, lost bool) {
			if lost {
				retry()
				return
			}
			answer(reply(c, i, res), refusal)
		})
	case leader == nil || leader == n:
		retry()
	default:
		n.forward(leader, c, answer, retry)
	}
}

// forward sends a command to the leader and waits for the answer. Requests and replies may be lost, and a request that
// was given up may still arrive.
func (n *node) forward(leader *node, c *proto.Command, answer func(*proto.ApplyReply, error), retry func()) {
	n.after(forwardTimeout, retry)
	n.w.send(n, leader, func() {
		leader.propose(c, func(i uint64, res state.Result, refusal error, lost bool) {
			n.w.send(leader, n, func() {
				if lost {
					retry()
					return
				}
				answer(reply(c, i, res), refusal)
			})
		})
	})
}

// reply is the outcome of a command as it goes over the wire.
func reply(c *proto.Command, index uint64, res state.Result) *proto.ApplyReply {
	r := &proto.ApplyReply{Index: index}
	if steps := c.GetReport().GetSteps(); res.Stale && len(steps) > 0 {
		r.Stale = steps[len(steps)-1].Step > res.Run.Step
	}
	return r
}

func (n *node) conclude(index uint64, f func()) {
	if n.applied >= index {
		f()
		return
	}
	n.waiting = append(n.waiting, waiter{index, f})
}

// replicaChanged wakes whoever waits for the replica.
func (n *node) replicaChanged() {
	var left []waiter
	for _, q := range n.waiting {
		if q.index <= n.applied {
			n.after(0, q.do)
		} else {
			left = append(left, q)
		}
	}
	n.waiting = left
	if n.reign != nil {
		n.after(ms/2, n.decide)
	}
	n.look()
}

// look follows the runs a moment later. What changes several times in between is seen once.
func (n *node) look() {
	if n.looking {
		return
	}
	n.looking = true
	n.after(n.w.delay(), func() {
		n.looking = false
		for _, r := range n.machine.Runs() {
			n.follow(r)
		}
	})
}

// follow is node.Node's.
func (n *node) follow(r *proto.Run) {
	id := r.Spec.Run
	if k := n.workers[id]; k != nil {
		k.tell(r)
		return
	}
	wanted := state.Leased(r.Phase) && slices.Contains(r.Lease.GetMembers(), n.id) && r.Lease.Generation > n.ended[id]
	if wanted || n.volunteers(r) {
		n.workers[id] = newWorker(n, r)
	}
}

// volunteers is node.Node's.
func (n *node) volunteers(r *proto.Run) bool {
	return outside(r, n.id) && r.Step+joinLeast <= r.LastStep() && n.machine.Node(n.id).GetDrain() == nil
}

func outside(r *proto.Run, id string) bool {
	return r.Phase == proto.Phase_RUNNING && r.Lease != nil && !slices.Contains(r.Lease.Members, id)
}

func (n *node) disk(run string) *disk {
	d := n.disks[run]
	if d == nil {
		d = &disk{}
		n.disks[run] = d
	}
	return d
}

// diskDelay is how much longer a write takes than it should; usual is how long it takes on a good day.
func (n *node) diskDelay(usual int64) int64 {
	d := n.w.rng.span(usual/10, usual)
	if n.w.now < n.slowUntil {
		d *= int64(n.w.rng.between(10, 200))
	}
	return d
}

func (n *node) full() bool { return n.w.now < n.fullUntil }

// user submits one run, and stops and resumes it at times.
type user struct {
	w    *World
	run  string
	home *node
	life life
	sent bool
	done bool
}

func newUser(w *World, i int) *user {
	u := &user{w: w, run: fmt.Sprintf("r%d", i+1), home: pick(&w.rng, w.nodes), life: newLife(w, i)}
	w.after(w.rng.span(0, 5*second), u.submit)
	return u
}

func (u *user) submit() {
	if u.sent {
		return
	}
	h := u.home
	if h.up && !h.frozen && h.machine.Node(h.id) != nil {
		h.disk(u.run).inputs = true
		spec := &proto.Spec{
			Run: u.run, Name: u.run, Steps: u.life.plan.Steps, MicroBatches: uint32(u.life.most), HomeNode: h.id,
			SubmittedUnixMs: h.clock(),
		}
		u.command(h, &proto.Command{Do: &proto.Command_SubmitRun{SubmitRun: &proto.SubmitRun{Spec: spec}}}, func() { u.sent = true })
	}
	u.w.after(5*second, u.submit)
}

// command is what a person types at a node: it may be refused.
func (u *user) command(at *node, c *proto.Command, done func()) {
	deadline := u.w.now + 15*second
	at.apply(c, func() bool { return u.w.now < deadline }, func(_ *proto.ApplyReply, refusal error) {
		if refusal == nil {
			done()
		}
	})
}

// meddle stops the run, or resumes it.
func (u *user) meddle(resume bool) {
	at := pick(&u.w.rng, u.w.nodes)
	if !at.up || at.frozen {
		return
	}
	c := &proto.Command{Do: &proto.Command_StopRun{StopRun: &proto.StopRun{Run: u.run}}}
	if resume {
		c = &proto.Command{Do: &proto.Command_ResumeRun{ResumeRun: &proto.ResumeRun{Run: u.run}}}
	}
	u.w.note("user", "%s at %s: resume %v", u.run, at.id, resume)
	u.command(at, c, func() {})
}
