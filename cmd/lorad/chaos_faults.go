package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"lorad/internal/chaos"
)

// inject lets one fault happen and waits for the next committed step.
func (e *experiment) inject(f chaos.Fault) faultView {
	if f.Kind.Cuts() {
		e.away.Wait() // all nodes on two sides, and no third kind
	}
	victims := e.victims(f)
	v := faultView{Kind: f.Kind, Node: nodeNames(victims), RecoveredMS: -1}
	if len(victims) == len(e.cluster.nodes) {
		v.Node = "all"
	}
	before, hit := e.watch.now(), e.watch.reached(victims)
	v.AtStep = before.step
	at, over := time.Now(), make(chan struct{})
	defer close(over)
	e.hits = append(e.hits, at)
	e.hit(f, victims, over)
	recovered := func(now *progressSeen) bool { return now.past(before, f.Kind, hit, at) }
	if e.watch.until(e.ctx, stuckAfter, recovered) == waitedFor {
		v.RecoveredMS = time.Since(at).Milliseconds()
	}
	return v
}

func nodeNames(nodes []*localNode) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.name
	}
	return strings.Join(names, ", ")
}

// victims are the nodes that the fault hits: those that are away already are passed over, and of the others one that
// works on the run is preferred. A kill spares the leader, which has a kind of its own.
func (e *experiment) victims(f chaos.Fault) []*localNode {
	var leader *localNode
	switch f.Kind {
	case chaos.Outage:
		return e.up()
	case chaos.Leader, chaos.Kill:
		leader = e.leader()
	case chaos.Partition:
		ring := e.ring(f.Node)
		if i := slices.IndexFunc(ring, e.works); i > 0 {
			ring = slices.Concat(ring[i:], ring[:i])
		}
		return ring[:(len(ring)-1)/2]
	}
	if f.Kind == chaos.Leader && leader != nil {
		return []*localNode{leader}
	}
	home := e.cluster.nodes[0] // a wipe spares it: its disk is the user's, with the result on it
	up := slices.DeleteFunc(e.ring(f.Node), func(n *localNode) bool { return !e.isUp(n) || f.Kind == chaos.Wipe && n == home })
	for _, good := range []func(*localNode) bool{
		func(n *localNode) bool { return n != leader && e.works(n) },
		func(n *localNode) bool { return n != leader },
	} {
		if i := slices.IndexFunc(up, good); i >= 0 {
			return up[i : i+1]
		}
	}
	return e.cluster.nodes[1:2]
}

// works says whether the node is a member of the lease.
func (e *experiment) works(n *localNode) bool { return e.watch.reached([]*localNode{n}) != nobody }

// ring is all nodes, from one on.
func (e *experiment) ring(from int) []*localNode {
	return slices.Concat(e.cluster.nodes[from:], e.cluster.nodes[:from])
}

var signals = map[chaos.Kind]syscall.Signal{
	chaos.Kill: syscall.SIGKILL, chaos.Leader: syscall.SIGKILL, chaos.Outage: syscall.SIGKILL, chaos.Torn: syscall.SIGKILL,
	chaos.Wipe: syscall.SIGKILL,
	chaos.Stop: syscall.SIGSTOP, chaos.Restart: syscall.SIGTERM,
}

// hit carries the fault out and has its victims come back later.
func (e *experiment) hit(f chaos.Fault, victims []*localNode, over <-chan struct{}) {
	e.mu.Lock()
	for _, n := range victims {
		e.down[n] = true
	}
	e.mu.Unlock()
	if f.Kind.Cuts() {
		e.network.Cut(strings.Split(nodeNames(victims), ", "))
		e.watch.parted(victims, true)
		e.away.Go(func() { e.heal(f, victims, over) })
		return
	}
	for _, n := range victims {
		if f.Kind == chaos.Disk {
			e.squeeze(n)
			continue
		}
		n.cmd.Process.Signal(signals[f.Kind])
	}
	for _, n := range victims {
		e.away.Go(func() { e.comeBack(f, n) })
	}
}

// heal ends a cut.
func (e *experiment) heal(f chaos.Fault, cut []*localNode, over <-chan struct{}) {
	began := time.Now()
	if e.inTurn {
		<-over
	}
	e.pause(f.Down - time.Since(began))
	e.watch.parted(cut, false)
	e.network.Heal()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range cut {
		delete(e.down, n)
	}
}

func (e *experiment) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-e.ctx.Done():
	}
}

// comeBack ends a fault for one of its victims. When the experiment is over, nothing is started any more.
func (e *experiment) comeBack(f chaos.Fault, n *localNode) {
	switch f.Kind {
	case chaos.Stop:
		e.pause(f.Down)
		n.cmd.Process.Signal(syscall.SIGCONT)
		e.back(n)
		return
	case chaos.Disk:
		if !e.outlasts(f, n) {
			e.back(n)
			return
		}
	default:
		e.ended(n)
	}
	n.stdin.Close()
	e.watch.forget(n)
	e.saved(n)
	if f.Kind == chaos.Torn {
		e.tear(n, f)
	}
	e.pause(f.Down)
	if e.ctx.Err() == nil {
		e.restart(f, n)
	}
}

// restart starts a node that has ended: with its disk, or, after a wipe, as a new one.
func (e *experiment) restart(f chaos.Fault, n *localNode) {
	err := error(nil)
	if f.Kind == chaos.Wipe {
		err = e.anew(n)
	} else {
		err = n.launch("", "up")
	}
	if err != nil {
		e.died("%s was not started again: %v", n.name, err)
		return
	}
	e.back(n)
	e.guard(n)
}

func (e *experiment) back(n *localNode) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.down, n)
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
