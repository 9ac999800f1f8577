package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"lorad/internal/chaos"
	"lorad/internal/relay"
	"lorad/proto"
)

const (
	// stuckAfter is how long after a fault, or after any step, the next step may take before the run is called stuck.
	stuckAfter = time.Minute
	// politeTimeout is how long a node may take to end after SIGTERM.
	politeTimeout = 15 * time.Second
	// inFlight is how long a step that was done before a fault may take to get into the ledger: members report in
	// batches.
	inFlight = 400 * time.Millisecond
)

// experiment is a cluster whose nodes are killed and started again while a run is on.
type experiment struct {
	ctx     context.Context
	cancel  context.CancelFunc
	cluster *localCluster
	network *relay.Network // nil: no fault parts it, and no byte is delayed
	watch   *watch
	run     string
	output  string
	every   time.Duration // between faults; 0: as the schedule says
	inTurn  bool          // one fault begins when the last one is over
	began   time.Time
	hits    []time.Time    // when faults were injected
	away    sync.WaitGroup // nodes that are to come back
	work    sync.WaitGroup

	mu      sync.Mutex
	down    map[*localNode]bool
	deaths  []string
	torn    map[*localNode]uint64 // the newest checkpoint that a fault has damaged
	unsaved int                   // checkpoints that were acknowledged and could not be restored
	files   []io.Closer
}

// startExperiment starts n nodes that keep their ports and write their logs to dir, on a network that is slow and can be cut,
// if that is asked for.
func startExperiment(ctx context.Context, dir string, c chaosCmd) (*experiment, error) {
	e := &experiment{watch: newWatch(), down: map[*localNode]bool{}, torn: map[*localNode]uint64{}, every: c.Every, inTurn: c.Series != ""}
	e.ctx, e.cancel = context.WithCancel(ctx)
	if c.Latency > 0 || slices.ContainsFunc(c.Faults, chaos.Kind.Cuts) {
		e.network = relay.New(c.Latency)
	}
	var err error
	e.cluster, err = startPrepared(ctx, c.Nodes, func(node *localNode) error {
		log, err := os.Create(filepath.Join(dir, node.name+".log"))
		if err != nil {
			return err
		}
		e.files = append(e.files, log)
		node.log = log
		return e.place(node)
	})
	if err != nil {
		e.cancel()
		e.unplug()
		return nil, err
	}
	for _, node := range e.cluster.nodes {
		e.guard(node)
	}
	return e, nil
}

// place decides where a node listens and where the others reach it: behind a relay if the network is to be cut or slow.
func (e *experiment) place(n *localNode) (err error) {
	if n.addr, err = steadyAddr("127.0.0.1"); err != nil || e.network == nil {
		return err
	}
	host := fmt.Sprintf("127.0.0.%d", 2+len(e.files))
	if n.bind, err = steadyAddr(host); err != nil {
		return fmt.Errorf("%w; a network that is cut or slow needs a loopback address for each node: on macOS, sudo ifconfig lo0 alias %s", err, host)
	}
	return e.network.Add(relay.Node{Name: n.name, Listen: n.addr, Target: n.bind, From: host})
}

func (e *experiment) unplug() {
	if e.network != nil {
		e.network.Close()
	}
}

// steadyAddr is a free port below those that systems hand out by themselves: a node that is away for a moment must find
// its port free again, and dialling a port of that range while nobody listens can end in connecting to oneself.
func steadyAddr(host string) (string, error) {
	const first, count = 20_000, 10_000
	for i := range count {
		addr := net.JoinHostPort(host, strconv.Itoa(first+(os.Getpid()*7+i)%count))
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, ln.Close()
		}
	}
	return "", fmt.Errorf("find a port: none of %s:%d to %d is free", host, first, first+count-1)
}

// end stops everything that the experiment started.
func (e *experiment) end() {
	e.cancel()
	e.away.Wait()
	e.mu.Lock()
	for _, n := range e.cluster.nodes {
		e.down[n] = true // what ends from now on was told to
	}
	e.mu.Unlock()
	e.cluster.stop()
	e.unplug()
	e.work.Wait()
	for _, f := range e.files {
		f.Close()
	}
}

// guard notes if a node's process ends and nobody had told it to.
func (e *experiment) guard(n *localNode) {
	done := n.done
	e.work.Go(func() {
		<-done
		if e.isUp(n) {
			e.died("%s ended by itself: %s", n.name, n.errs.last())
		}
	})
}

// submit starts the run, with the first node as its home.
func (e *experiment) submit(req *proto.SubmitRequest) error {
	c, err := dial(e.ctx, e.cluster.nodes[0].dir)
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Submit(e.ctx, req)
	if err != nil {
		return err
	}
	e.run, e.output = reply.Run.Spec.Run, reply.Run.Spec.OutputDir
	e.began = time.Now()
	for _, n := range e.cluster.nodes {
		e.work.Go(func() { e.watch.follow(e.ctx, n, e.run) })
	}
	return nil
}

// due waits for the moment of a fault; false if the run was over or stuck before.
func (e *experiment) due(f chaos.Fault) bool {
	switch {
	case e.every > 0:
		at := e.began.Add(e.every * time.Duration(len(e.hits)+1))
		return e.watch.wait(e.ctx, time.Until(at))
	case e.inTurn:
		return e.whole() && e.watch.wait(e.ctx, f.Wait)
	}
	for last := e.watch.steps(); ; last = e.watch.steps() {
		moved := func(s *progressSeen) bool { return s.step >= f.Step || s.step > last }
		if e.watch.until(e.ctx, stuckAfter, moved) != waitedFor {
			return false
		}
		if e.watch.steps() >= f.Step {
			return e.watch.wait(e.ctx, f.Wait)
		}
	}
}

// settledFor is how long a lease must have stood before a fault of a series: one that hits the grant of a new generation
// cannot be told from it.
const settledFor = 700 * time.Millisecond

// whole waits until all nodes are back and follow the log, and a majority of them has been working on the run for a
// moment.
func (e *experiment) whole() bool {
	e.away.Wait()
	all := e.cluster.nodes
	return e.watch.until(e.ctx, stuckAfter, func(s *progressSeen) bool {
		return len(s.run.GetLease().GetMembers()) > len(all)/2 && time.Since(s.granted) > settledFor && e.watch.abreast(all)
	}) == waitedFor
}

func (e *experiment) isUp(n *localNode) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.down[n]
}

func (e *experiment) up() []*localNode {
	var up []*localNode
	for _, n := range e.cluster.nodes {
		if e.isUp(n) {
			up = append(up, n)
		}
	}
	return up
}

// leader asks around until somebody knows a leader that is up, but not for ever.
func (e *experiment) leader() *localNode {
	ctx, cancel := context.WithTimeout(e.ctx, 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		for _, n := range e.up() {
			if l := e.named(leaderSeenBy(ctx, n.dir)); l != nil && e.isUp(l) {
				return l
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func (e *experiment) named(name string) *localNode {
	for _, n := range e.cluster.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// leaderSeenBy is the name of the leader as the node of dir sees it, or "".
func leaderSeenBy(ctx context.Context, dir string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := dial(ctx, dir)
	if err != nil {
		return ""
	}
	defer c.Close()
	reply, err := c.Cluster(ctx, &proto.ClusterRequest{})
	if err != nil {
		return ""
	}
	for _, s := range reply.Nodes {
		if s.Leader {
			return s.Node.Name
		}
	}
	return ""
}

// finish waits for the end of the run and takes stock.
func (e *experiment) finish(seen *chaos.Seen, res *chaosResult, reference *proto.Run) {
	if seen.Unrecovered == 0 {
		seen.Failure = e.watch.end(e.ctx)
	}
	e.away.Wait()
	run, audit, err := e.questions(reference)
	if err != nil {
		seen.Failure = joinText(seen.Failure, "the home node does not answer: "+message(err))
	} else {
		seen.LostSteps, seen.MinorityCommits = e.watch.lost(run.Ledger), e.watch.aside(run.Ledger)
		seen.DivergedSteps = differing(reference.Ledger, run.Ledger)
		seen.Missing, seen.Doubled, seen.AuditFindings = audit.Missing, audit.Duplicated, audit.Findings
		res.Generations = run.GetLease().GetGeneration()
		res.StepMS = medianStep(run.Ledger).Milliseconds()
		res.Goodput = chaos.Goodput(e.watch.samples, e.hits, e.every)
	}
	seen.SHA256, seen.Clean = weights(e.output), weights(reference.Spec.OutputDir)
	seen.State, seen.CleanState = lastState(run), lastState(reference)
	e.mu.Lock()
	defer e.mu.Unlock()
	seen.LostSaved = e.unsaved
	seen.Deaths = append([]string(nil), e.deaths...)
}

func medianStep(ledger []*proto.StepRecord) time.Duration {
	d := make([]time.Duration, len(ledger))
	for i, s := range ledger {
		d[i] = time.Duration(s.DurationUs) * time.Microsecond
	}
	return chaos.Quantile(d, 0.5)
}

// lastState is the SHA-256 of weights and optimiser after the last step, or "".
func lastState(r *proto.Run) string {
	for _, c := range r.GetCheckpoints() {
		if c.Step == r.LastStep() {
			return hex.EncodeToString(c.Sha256)
		}
	}
	return ""
}

func joinText(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// questions asks the home node for the ledger and for an audit of it.
func (e *experiment) questions(reference *proto.Run) (*proto.Run, *proto.AuditReply, error) {
	ctx, cancel := context.WithTimeout(e.ctx, startTimeout)
	defer cancel()
	for {
		run, audit, err := ask(ctx, e.cluster.nodes[0].dir, reference.Spec.Name)
		if err == nil || ctx.Err() != nil {
			return run, audit, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func ask(ctx context.Context, dir, name string) (*proto.Run, *proto.AuditReply, error) {
	c, err := dial(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	run, err := c.GetRun(ctx, &proto.GetRunRequest{Run: name})
	if err != nil {
		return nil, nil, err
	}
	audit, err := c.Audit(ctx, &proto.AuditRequest{Run: run.Spec.Run})
	return run, audit, err
}

// differing counts the steps after which two runs of the same job had another state.
func differing(want, got []*proto.StepRecord) int {
	n := max(len(want), len(got)) - min(len(want), len(got))
	for i := range min(len(want), len(got)) {
		if want[i].Digest != got[i].Digest {
			n++
		}
	}
	return n
}
