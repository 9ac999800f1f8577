package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lorad/proto"
	"lorad/transport"
)

// lonely is how long a node is without a leader before it asks itself whether it is still wanted.
const lonely = 2 * time.Second

// watchStanding finds out whether this node was thrown out: its own replica says so, or, when it finds no other voter, a
// node that belongs to a later epoch of the cluster. A majority of several voters is never cast out by somebody who
// recovered too soon: both go on, and are never merged.
func (c *Coordinator) watchStanding(ctx context.Context) {
	since := c.now()
	for sleep(ctx, lonely/4) == nil {
		if c.fsm.removed(c.id) {
			c.castOut(errors.New("this node was removed from the cluster: to come back it needs a new token and an empty state directory (`lorad join`)"))
			return
		}
		c.settleTimes()
		if c.inCompany() {
			since = c.now()
		} else if c.now().Sub(since) > lonely {
			if why := c.superseded(ctx); why != nil {
				c.castOut(why)
				return
			}
			since = c.now()
		}
	}
}

// inCompany reports whether this node has a leader and, if it votes, another voter.
func (c *Coordinator) inCompany() bool {
	if c.leader() == "" {
		return false
	}
	voters, up := c.voters()
	return up > 1 || voters == 1 && !slices.Contains(c.voterIDs(), c.id)
}

// superseded asks the nodes that this one knows whether they have gone on without it.
func (c *Coordinator) superseded(ctx context.Context) error {
	for _, n := range c.Nodes() {
		if n.Id == c.id || n.Addr == "" || c.gossip.alive(n.Id) {
			continue
		}
		if why := c.goneOn(ctx, n); why != nil {
			return why
		}
	}
	return nil
}

func (c *Coordinator) goneOn(ctx context.Context, n *proto.Node) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	conn, err := c.cfg.Dialer.DialNode(ctx, n.Addr, n.Id, transport.GRPC)
	var refused *transport.Error
	switch {
	case err == nil:
		conn.Close()
	case errors.As(err, &refused) && refused.Kind == transport.Recovered:
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

func (c *Coordinator) castOut(why error) {
	c.outcastOnce.Do(func() {
		c.outcastWhy = why
		c.log.Error("this node is not wanted", "err", why)
		close(c.outcast)
	})
}

// Outcast is why this node is no part of its cluster any more, or nil as far as it knows. It is final.
func (c *Coordinator) Outcast() error {
	select {
	case <-c.outcast:
		return c.outcastWhy
	default:
		return nil
	}
}

// CastOut returns a channel that is closed when Outcast begins to say why.
func (c *Coordinator) CastOut() <-chan struct{} { return c.outcast }
