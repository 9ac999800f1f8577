package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"lorad/internal/chaos"
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
	watch   *watch
	output  string
	began   time.Time
	faults  int            // injected
	away    sync.WaitGroup // nodes that are to come back
	work    sync.WaitGroup

	mu     sync.Mutex
	down   map[*localNode]bool
	deaths []string
	files  []io.Closer
}

// startExperiment starts n nodes that keep their ports and write their logs to dir.
func startExperiment(ctx context.Context, dir string, n int) (*experiment, error) {
	e := &experiment{watch: newWatch(), down: map[*localNode]bool{}}
	e.ctx, e.cancel = context.WithCancel(ctx)
	var err error
	e.cluster, err = startPrepared(ctx, n, func(node *localNode) error {
		log, err := os.Create(filepath.Join(dir, node.name+".log"))
		if err != nil {
			return err
		}
		e.files = append(e.files, log)
		node.log = log
		node.addr, err = steadyAddr()
		return err
	})
	if err != nil {
		e.cancel()
		return nil, err
	}
	for _, node := range e.cluster.nodes {
		e.guard(node)
	}
	return e, nil
}

// steadyAddr is a free port below those that systems hand out by themselves: a node that is away for a moment must find
// its port free again, and dialling a port of that range while nobody listens can end in connecting to oneself.
func steadyAddr() (string, error) {
	const first, count = 20_000, 10_000
	for i := range count {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+(os.Getpid()*7+i)%count))
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, ln.Close()
		}
	}
	return "", fmt.Errorf("find a port: none of 127.0.0.1:%d to %d is free", first, first+count-1)
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
	e.output = reply.Run.Spec.OutputDir
	e.began = time.Now()
	for _, n := range e.cluster.nodes {
		e.work.Go(func() { e.watch.follow(e.ctx, n.dir, reply.Run.Spec.Run) })
	}
	return nil
}

// due waits for the moment of a fault; false if the run was over or stuck before.
func (e *experiment) due(f chaos.Fault, every time.Duration) bool {
	if every > 0 {
		at := e.began.Add(every * time.Duration(e.faults+1))
		return e.watch.until(e.ctx, time.Until(at), func(*progressSeen) bool { return false }) == waitedOut
	}
	for last := e.watch.steps(); ; last = e.watch.steps() {
		moved := func(s *progressSeen) bool { return s.step >= f.Step || s.step > last }
		if e.watch.until(e.ctx, stuckAfter, moved) != waitedFor {
			return false
		}
		if e.watch.steps() >= f.Step {
			return e.watch.until(e.ctx, f.Wait, func(*progressSeen) bool { return false }) == waitedOut
		}
	}
}

// inject lets one fault happen and waits for the next committed step.
func (e *experiment) inject(f chaos.Fault) faultView {
	e.faults++
	victims := e.victims(f)
	v := faultView{Kind: f.Kind, Node: victims[0].name, RecoveredMS: -1}
	if len(victims) > 1 {
		v.Node = "all"
	}
	before, hit := e.watch.now(), e.watch.reached(victims)
	v.AtStep = before.step
	at := time.Now()
	e.hit(f, victims)
	recovered := func(now *progressSeen) bool { return now.past(before, f.Kind, hit, at) }
	if e.watch.until(e.ctx, stuckAfter, recovered) == waitedFor {
		v.RecoveredMS = time.Since(at).Milliseconds()
	}
	return v
}

// victims are the nodes that the fault hits: those that are away already are passed over.
func (e *experiment) victims(f chaos.Fault) []*localNode {
	nodes := e.cluster.nodes
	if f.Kind == chaos.Outage {
		return e.up()
	}
	if f.Kind == chaos.Leader {
		if n := e.leader(); n != nil {
			return []*localNode{n}
		}
	}
	for i := range nodes {
		if n := nodes[(f.Node+i)%len(nodes)]; e.isUp(n) {
			return []*localNode{n}
		}
	}
	return nodes[:1]
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

// hit carries the fault out and has its victims come back later.
func (e *experiment) hit(f chaos.Fault, victims []*localNode) {
	e.mu.Lock()
	for _, n := range victims {
		e.down[n] = true
	}
	e.mu.Unlock()
	signal := map[chaos.Kind]syscall.Signal{chaos.Stop: syscall.SIGSTOP, chaos.Restart: syscall.SIGTERM}[f.Kind]
	if signal == 0 {
		signal = syscall.SIGKILL
	}
	for _, n := range victims {
		n.cmd.Process.Signal(signal)
	}
	for _, n := range victims {
		e.away.Go(func() { e.comeBack(f, n) })
	}
}

// ended waits for a node that was told to end, and makes it if it does not.
func (e *experiment) ended(n *localNode) {
	select {
	case <-n.done:
		return
	case <-time.After(politeTimeout):
		e.died("%s did not end within %s of SIGTERM: %s", n.name, politeTimeout, n.errs.last())
	case <-e.ctx.Done():
	}
	n.cmd.Process.Kill()
	<-n.done
}

func (e *experiment) died(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deaths = append(e.deaths, fmt.Sprintf(format, args...))
}

// comeBack ends a fault for one of its victims. When the experiment is over, nothing is started any more.
func (e *experiment) comeBack(f chaos.Fault, n *localNode) {
	if f.Kind != chaos.Stop {
		e.ended(n)
		n.stdin.Close()
	}
	select {
	case <-time.After(f.Down):
	case <-e.ctx.Done():
	}
	if f.Kind == chaos.Stop {
		n.cmd.Process.Signal(syscall.SIGCONT)
	} else if e.ctx.Err() != nil {
		return
	} else if err := n.launch("", "up"); err != nil {
		e.died("%v", err)
		return
	}
	e.mu.Lock()
	delete(e.down, n)
	e.mu.Unlock()
	if f.Kind != chaos.Stop {
		e.guard(n)
	}
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
		seen.LostSteps = e.watch.lost(run.Ledger)
		seen.DivergedSteps = differing(reference.Ledger, run.Ledger)
		seen.Missing, seen.Doubled, seen.AuditFindings = audit.Missing, audit.Duplicated, audit.Findings
		res.Generations = run.GetLease().GetGeneration()
	}
	seen.SHA256, seen.Clean = weights(e.output), weights(reference.Spec.OutputDir)
	e.mu.Lock()
	defer e.mu.Unlock()
	seen.Deaths = append([]string(nil), e.deaths...)
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
