package coordinator

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"lorad/coordinator/state"
	"lorad/proto"
)

// When a node is removed, the leader draws a new gossip key. It goes to the others with the log, by TLS and never by
// gossip. Each of them reads with it at once, writes with it after keyLead, when the others can be expected to read it,
// and forgets the old one after keyOverlap. A node that was away asks for it: gossip does not understand it any more.
const (
	gossipKeySize = 32
	keyLead       = time.Second
	keyOverlap    = 10 * time.Second
)

// gossipKey is a key and how many nodes were removed when it was drawn: more is newer.
type gossipKey struct {
	key     []byte
	removed uint64
}

// newest is the newest key that this node has heard of.
func (c *Coordinator) newest() gossipKey {
	have := c.creds.gossipKey()
	cluster := read(c.fsm, (*state.Machine).Cluster)
	if len(cluster.GetGossipKey()) == gossipKeySize && cluster.RotatedFor > have.removed {
		return gossipKey{cluster.GossipKey, cluster.RotatedFor}
	}
	return have
}

// Keys tells a node the newest key.
func (s coordination) Keys(context.Context, *proto.KeysRequest) (*proto.KeysReply, error) {
	k := s.c.newest()
	return &proto.KeysReply{GossipKey: k.key, RotatedFor: k.removed}, nil
}

// rekey follows the key of the state.
func (c *Coordinator) rekey(ctx context.Context) {
	for {
		changed, _ := c.fsm.next()
		if k := c.newest(); k.removed > c.creds.gossipKey().removed {
			if c.adopt(ctx, k, keyLead) != nil || sleep(ctx, keyOverlap) != nil {
				return
			}
			c.gossip.forgetOtherKeys(k.key)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// adopt reads with a newer key from now on, and writes with it after lead.
func (c *Coordinator) adopt(ctx context.Context, k gossipKey, lead time.Duration) error {
	if err := c.gossip.keys.AddKey(k.key); err != nil {
		c.log.Error("gossip key was not taken", "err", err)
		return nil
	}
	c.creds.setGossipKey(k)
	if err := c.creds.saveRecord(c.cfg.Dir, c.creds.seeds()); err != nil {
		c.log.Warn("gossip key was not saved", "err", err)
	}
	if err := sleep(ctx, lead); err != nil {
		return err
	}
	if err := c.gossip.keys.UseKey(k.key); err != nil {
		c.log.Error("gossip key is not used", "err", err)
	}
	c.log.Info("gossip key changed", "removed nodes", k.removed)
	return nil
}

// forgetOtherKeys drops all keys but one.
func (g *gossip) forgetOtherKeys(key []byte) {
	for _, k := range g.keys.GetKeys() {
		if !bytes.Equal(k, key) {
			g.keys.RemoveKey(k)
		}
	}
}

// askKeys asks everybody this node knew for a newer key: without a leader it may be that the key was changed while it was
// away. That it hears somebody proves nothing, because a removed node may still whisper with the old key.
func (c *Coordinator) askKeys(ctx context.Context) {
	each(append(addresses(c.Nodes(), c.id), c.creds.seeds()...), func(addr string) { c.askKey(ctx, addr) })
}

// each does something with every address at once, and returns when all is done: one that does not answer must not hold up
// those that do.
func each(addrs []string, do func(addr string)) {
	var work sync.WaitGroup
	addrs = slices.Clone(addrs)
	slices.Sort(addrs)
	for _, addr := range slices.Compact(addrs) {
		work.Go(func() { do(addr) })
	}
	work.Wait()
}

// askKey gets the newest key from the node at addr, if that has a newer one.
func (c *Coordinator) askKey(ctx context.Context, addr string) {
	conn, err := c.cfg.Dialer.GRPC(addr)
	if err != nil {
		return
	}
	defer conn.Close()
	asking, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	r, err := proto.NewCoordinationClient(conn).Keys(asking, &proto.KeysRequest{})
	if err != nil || len(r.GossipKey) != gossipKeySize || r.RotatedFor <= c.creds.gossipKey().removed {
		return
	}
	c.adopt(ctx, gossipKey{r.GossipKey, r.RotatedFor}, 0)
}

// rotate draws a new gossip key when a node was removed, once Raft does not send it the log any more.
func (r reign) rotate() {
	removed := read(r.fsm, (*state.Machine).RemovedCount)
	cluster := read(r.fsm, (*state.Machine).Cluster)
	if cluster == nil || cluster.RotatedFor >= removed {
		return
	}
	f := r.raft.GetConfiguration()
	if f.Error() != nil || anyRemoved(r.fsm, f.Configuration().Servers) {
		return
	}
	rotate := &proto.RotateGossipKey{Key: newGossipKey(), Removed: removed}
	if _, err := r.propose(&proto.Command{Do: &proto.Command_RotateGossipKey{RotateGossipKey: rotate}}); err != nil {
		r.log.Warn("gossip key was not changed", "err", err)
	}
}

func anyRemoved(f *fsm, servers []raft.Server) bool {
	for _, s := range servers {
		if f.removed(string(s.ID)) {
			return true
		}
	}
	return false
}
