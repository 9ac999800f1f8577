package coordinator

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/proto"
)

// with starts a cluster of n boxes whose voters are replaced soon.
func with(t testing.TB, n int, after time.Duration) []*box {
	t.Helper()
	boxes := []*box{firstWith(t, func(c *Config) { c.ReplaceVoterAfter = after })}
	tok := boxes[0].token(uint32(n), time.Minute)
	for range n - 1 {
		boxes = append(boxes, boxes[0].joinWith(tok, facts("box"), func(c *Config) { c.ReplaceVoterAfter = after }))
	}
	return boxes
}

func (b *box) statusOf(id string) *proto.NodeStatus {
	reply, err := b.ctl.Cluster(b.ctx(enough), &proto.ClusterRequest{})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, n := range reply.Nodes {
		if n.Node.Id == id {
			return n
		}
	}
	return nil
}

func (b *box) remove(name string) error {
	_, err := b.ctl.RemoveNode(b.ctx(enough), &proto.RemoveNodeRequest{Node: name})
	return err
}

// TestWitnessKeepsTwoBoxesGoing: two boxes and a witness are three votes. The witness gets no work, takes no runs, and
// does not keep the lead.
func TestWitnessKeepsTwoBoxesGoing(t *testing.T) {
	t.Parallel()
	a := first(t)
	b := a.join(a.token(1, time.Minute))
	tok, err := a.ctl.CreateToken(a.ctx(enough), &proto.CreateTokenRequest{Role: "witness"})
	if err != nil {
		t.Fatal(err)
	}
	wish := facts("witness")
	wish.Witness = true
	w := a.joinWith(tok.Token, wish, func(c *Config) { c.Prepare = nil })
	eventually(t, "three voters", func() bool { v, r := b.voters(); return v == 3 && r == 3 })
	if w.creds.secret != nil {
		t.Error("a witness was given the authority")
	}
	if _, err := w.ctl.Submit(w.ctx(enough), &proto.SubmitRequest{JobYaml: "x"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("submitted to a witness: %v", err)
	}
	run := b.submit("job: witness").Run.Spec.Run
	b.leased(run, 2, 1)
	if s := b.statusOf(w.ID()); !s.Node.Witness || !s.Votes {
		t.Errorf("witness: %v", s)
	}
	a.kill()
	r := b.leased(run, 1, 2)
	if r.Lease.Members[0] != b.ID() {
		t.Errorf("leased to %v", r.Lease.Members)
	}
	if err := b.did(run, 1, 5); err != nil {
		t.Error(err)
	}
	eventually(t, "a leader that works", b.leads)
	again, err := Load(w.dir)
	if err != nil || !again.Node.Witness || !again.Node.Voter {
		t.Errorf("the witness comes back as %v, %v", again.Node, err)
	}
}

// TestDeadVoterIsReplaced: a fourth box votes in the place of one that stays away, and a second loss is survived.
func TestDeadVoterIsReplaced(t *testing.T) {
	t.Parallel()
	boxes := with(t, 4, time.Second)
	eventually(t, "three voters", func() bool { v, _ := boxes[0].voters(); return v == 3 })
	var spare *box
	for _, x := range boxes {
		if !boxes[0].statusOf(x.ID()).Votes {
			spare = x
		}
	}
	lead, rest := leader(boxes)
	var dead *box
	for _, x := range rest {
		if x != spare {
			dead = x
		}
	}
	dead.kill()
	eventually(t, "the spare votes", func() bool {
		return lead.statusOf(spare.ID()).Votes && !lead.statusOf(dead.ID()).Votes
	})
	lead.kill()
	survivor := spare
	if err := survivor.do1(&proto.Command{Do: &proto.Command_PutToken{PutToken: &proto.PutToken{Token: &proto.Token{
		Id: "t", SecretSha256: make([]byte, 32), UsesLeft: 1, ExpiresUnixMs: 1 << 60}}}}); err != nil {
		t.Errorf("after the second loss: %v", err)
	}
}

// do1 has the cluster carry out a command.
func (b *box) do1(c *proto.Command) error {
	_, err := b.apply(b.ctx(enough), c)
	return err
}

// TestRemoveNode: the leader itself is removed, its run moves, nobody listens to it any more; and no node goes whose vote is needed.
func TestRemoveNode(t *testing.T) {
	t.Parallel()
	var told atomic.Int32
	a := first(t)
	tok := a.token(3, time.Minute)
	b := a.joinWith(tok, facts("box"), func(c *Config) { c.OnRemoved = func(string) { told.Add(1) } })
	c := a.join(tok)
	eventually(t, "three voters", func() bool { v, r := b.voters(); return v == 3 && r == 3 })
	handTo(t, a, b, c)
	run := a.submit("job: moves").Run.Spec.Run
	b.leased(run, 3, 1)
	if err := b.remove("nobody"); status.Code(err) != codes.NotFound {
		t.Errorf("removed nobody: %v", err)
	}
	if err := b.remove(a.ID()); err != nil {
		t.Fatal(err)
	}
	r := b.leased(run, 2, 2)
	if r.HomeNode() != b.ID() {
		t.Errorf("the run's home is %s", r.HomeNode())
	}
	eventually(t, "one voter of two nodes", func() bool { v, up := b.voters(); return v == 1 && up == 1 })
	eventually(t, "OnRemoved", func() bool { return told.Load() == 1 })
	if err := a.Report(a.ctx(time.Second), &proto.Report{Run: run, Node: a.ID(), Generation: 2}); err == nil {
		t.Error("a removed node reported")
	}
	d := b.join(b.token(1, time.Minute)) // the tokens of the removed went with it
	eventually(t, "three voters again", func() bool { v, up := c.voters(); return v == 3 && up == 3 })
	d.kill()
	eventually(t, "one is down", func() bool { _, up := b.voters(); return up == 2 })
	if err := b.remove(c.ID()); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no quorum without it: 1 of the 2 other voters") {
		t.Errorf("removed a voter that is needed: %v", err)
	}
	if err := b.remove(d.ID()); err != nil {
		t.Errorf("a dead voter was not removed: %v", err)
	}
}
