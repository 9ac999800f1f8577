package coordinator

import (
	"context"
	"errors"
	"os"
	"strings"

	"lorad/coordinator/state"
	"lorad/proto"
)

// announce records what this node is and where, whenever that is not what the state says.
func (c *Coordinator) announce(ctx context.Context) {
	for {
		changed, _ := c.fsm.next()
		if !c.recorded() {
			_, err := c.apply(ctx, &proto.Command{Do: &proto.Command_PutNode{PutNode: &proto.PutNode{Node: c.facts}}})
			var refusal *state.Error
			if errors.As(err, &refusal) {
				c.log.Error("this node is not wanted", "err", err)
				return
			}
		}
		if err := c.back(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("this node is still drained", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// recorded reports whether the state knows this node as it is. The name may have got a number.
func (c *Coordinator) recorded() bool {
	n, f := c.fsm.node(c.id), c.facts
	return n != nil && n.Addr == f.Addr && n.Cores == f.Cores && n.MemoryBytes == f.MemoryBytes && n.Engine == f.Engine &&
		n.Version == f.Version && state.Named(n.Name, f.Name)
}

// housekeep keeps on disk where the others are, and cuts off who was removed.
func (c *Coordinator) housekeep(ctx context.Context) {
	var nodes []*proto.Node
	seeds := strings.Join(c.creds.seeds(), " ")
	for {
		changed, _ := c.fsm.next()
		was := nodes
		nodes = c.Nodes()
		c.keepAuthority()
		for _, n := range was {
			if c.creds.Identity.Revoked(n.Id) {
				c.disown(n.Id)
			}
		}
		others := addresses(nodes, c.id)
		if now := strings.Join(others, " "); len(others) > 0 && now != seeds {
			c.creds.setSeeds(others)
			if err := c.creds.saveRecord(c.cfg.Dir, others); err != nil && !errors.Is(err, os.ErrNotExist) {
				c.log.Warn("addresses of the other nodes were not saved", "err", err)
			}
			seeds = now
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// disown cuts the connections of a node that was removed. New ones are refused by the identity's Revoked.
func (c *Coordinator) disown(id string) {
	c.cfg.Mux.Disconnect(id)
	c.cfg.Dialer.Disconnect(id)
	c.log.Info("node removed from the cluster", "id", id)
	if c.cfg.OnRemoved != nil {
		c.cfg.OnRemoved(id)
	}
}
