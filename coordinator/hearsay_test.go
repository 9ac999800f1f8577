package coordinator

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"lorad/proto"
)

// Others call a member of a lease dead: after a network was parted they do so of whom they could not see. The leader asks it
// before it goes on without it. Whoever does not answer, or said goodbye, is gone.
func TestHearsay(t *testing.T) {
	for name, gone := range map[string]bool{"it answers": false, "it is cut off": true, "it left": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 3)
				b.until("a leader", time.Minute, func() bool { return b.leader() != nil })
				lead := b.leader()
				other := b.all()[slices.IndexFunc(b.all(), func(c *cell) bool { return c != lead })]
				reply, err := lead.ctl.Submit(context.Background(), &proto.SubmitRequest{JobYaml: "job: x", Dir: "/out"})
				if err != nil {
					t.Fatal(err)
				}
				id := reply.Run.Spec.Run
				b.until("a lease of all", time.Minute, func() bool { return len(lead.Run(id).Lease.GetMembers()) == 3 })
				before := lead.Run(id).Lease.Generation
				state := memberlist.StateDead
				switch name {
				case "it is cut off":
					b.mu.Lock()
					b.cut[pair(lead.id, other.id)] = true
					b.mu.Unlock()
				case "it left":
					state = memberlist.StateLeft
				}
				seen, _ := lead.gossip.lookup(other.id)
				lead.gossip.sight(&memberlist.Node{Name: other.id, Meta: []byte(seen.addr + " " + seen.boot), State: state}, false)
				time.Sleep(2 * time.Second)
				l := lead.Run(id).Lease
				if (l.Generation != before) != gone || slices.Contains(l.Members, other.id) == gone {
					t.Errorf("generation %d after %d, of %d members", l.Generation, before, len(l.Members))
				}
			})
		})
	}
}

// What a node says of itself counts for a moment, and then gossip's word again.
func TestVouchedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := (&bubble{t: t, log: slog.DiscardHandler}).skeleton("a").gossip
		g.sight(&memberlist.Node{Name: "b", Meta: []byte("b:1 1")}, true)
		g.sight(&memberlist.Node{Name: "b", Meta: []byte("b:1 1"), State: memberlist.StateDead}, false)
		if g.alive("b") || len(g.hearsayOf([]string{"b", "c"})) != 1 {
			t.Error("dead is alive, or nobody is to be asked")
		}
		g.pinged("b", true)
		if !g.alive("b") || len(g.hearsayOf([]string{"b"})) != 0 {
			t.Error("its own word does not count")
		}
		time.Sleep(vouchedFor + time.Millisecond)
		if g.alive("b") {
			t.Error("its word counts for ever")
		}
		g.sight(&memberlist.Node{Name: "b", Meta: []byte("b:1 2")}, true)
		g.sight(&memberlist.Node{Name: "b", Meta: []byte("b:1 2"), State: memberlist.StateDead}, false)
		g.pinged("b", true)
		if g.pinged("b", false); g.alive("b") {
			t.Error("it answered, then it did not, and it is alive")
		}
	})
}
