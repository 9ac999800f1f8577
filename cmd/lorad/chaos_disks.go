package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lorad/ca"
	"lorad/internal/chaos"
	"lorad/node/checkpoint"
	"lorad/proto"
)

// squeeze leaves a node no room: files may not become larger than its log is now, and a little.
func (e *experiment) squeeze(n *localNode) {
	room := int64(64 << 10)
	if info, err := os.Stat(filepath.Join(n.dir, "raft.db")); err == nil {
		room += info.Size()
	}
	if err := limitFiles(n.cmd.Process.Pid, room); err != nil {
		e.died("no room for %s: %v", n.name, err)
	}
}

// outlasts waits for the end of a full disk; true if the node ended before, as it may if its log did not fit, and says
// so.
func (e *experiment) outlasts(f chaos.Fault, n *localNode) (ended bool) {
	select {
	case <-n.done:
		if said := n.errs.last(); !strings.Contains(said, "raft.db") {
			e.died("%s ended on a full disk, and said only: %s", n.name, said)
		}
		return true
	case <-time.After(f.Down):
	case <-e.ctx.Done():
	}
	if err := limitFiles(n.cmd.Process.Pid, -1); err != nil {
		e.died("no more room for %s: %v", n.name, err)
	}
	return false
}

// anew has a node whose disk is lost join as a new one; the old one is removed from the cluster.
func (e *experiment) anew(n *localNode) error {
	if newest := e.watch.acknowledged(n.name); newest != nil {
		e.mu.Lock()
		e.torn[n] = newest.Step
		e.mu.Unlock()
	}
	if err := os.RemoveAll(n.dir); err != nil {
		return err
	}
	for {
		t, err := e.replaced(n)
		if err == nil {
			return n.launch(t.Token, "join", t.Addr)
		}
		if e.ctx.Err() != nil {
			return err
		}
		e.pause(100 * time.Millisecond)
	}
}

// replaced removes a node and makes a token for its successor, at whoever is up.
func (e *experiment) replaced(n *localNode) (*proto.CreateTokenReply, error) {
	up := e.up()
	if len(up) == 0 {
		return nil, fmt.Errorf("nobody is up")
	}
	ctx, cancel := context.WithTimeout(e.ctx, startTimeout)
	defer cancel()
	c, err := dial(ctx, up[0].dir)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	names, err := c.names(ctx)
	if err != nil {
		return nil, err
	}
	for id, name := range names {
		if name == n.name {
			if _, err := c.RemoveNode(ctx, &proto.RemoveNodeRequest{Node: id}); err != nil {
				return nil, err
			}
		}
	}
	return c.CreateToken(ctx, &proto.CreateTokenRequest{Uses: 1, Role: string(ca.Voter)})
}

// saved looks whether the newest checkpoint that a node has acknowledged, or one that has come after it, is on its disk. The node is not up.
func (e *experiment) saved(n *localNode) {
	newest := e.watch.acknowledged(n.name)
	e.mu.Lock()
	defer e.mu.Unlock()
	if newest == nil || newest.Step <= e.torn[n] {
		return
	}
	dir := e.checkpoints(n)
	for _, later := range checkpoint.List(dir) { // acknowledged since, or about to be: it may have taken the place of the one that we know
		if later > newest.Step && later != e.torn[n] && checkpoint.Check(dir, e.run, later, nil) == nil {
			return
		}
	}
	if err := checkpoint.Check(dir, e.run, newest.Step, newest.Sha256); err != nil {
		e.unsaved++
		e.deaths = append(e.deaths, fmt.Sprintf("%s acknowledged the checkpoint of step %d: %v", n.name, newest.Step, err))
	}
}

// checkpoints is where a node keeps those of the run.
func (e *experiment) checkpoints(n *localNode) string {
	if n == e.cluster.nodes[0] {
		return e.output
	}
	return filepath.Join(n.dir, "runs", e.run)
}

// tear damages the newest checkpoint of a node that is away: its end is missing, as if it had never reached the disk,
// or a bit has flipped.
func (e *experiment) tear(n *localNode, f chaos.Fault) {
	dir := e.checkpoints(n)
	steps := checkpoint.List(dir)
	if len(steps) == 0 {
		return
	}
	newest := steps[len(steps)-1]
	e.mu.Lock()
	e.torn[n] = newest
	e.mu.Unlock()
	path := filepath.Join(checkpoint.Path(dir, newest), "state.bin")
	data, err := os.ReadFile(path)
	if err != nil {
		return // a checkpoint that another version of lorad made
	}
	if half := len(data) / 2; f.Step%2 == 0 {
		data = data[:half]
	} else {
		data[half] ^= 1
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		e.died("tear %s: %v", path, err)
	}
}
