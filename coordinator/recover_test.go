package coordinator

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lorad/ca"
	"lorad/proto"
)

func quietLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func (b *box) plan() (*Recovery, error) {
	return PlanRecovery(b.ctx(enough), b.dir, "somebody", quietLog())
}

// again starts a box that was closed, where it was.
func (b *box) again() *box {
	b.t.Helper()
	creds, err := Load(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	return openWith(b.t, b.dir, "box", b.mux.Advertise(), creds, func(*Config) {})
}

// TestRecoverFromALostMajority: two of three voters are gone, the home node of the run among them. The third goes on by itself with
// all that it had; the lost ones come back, are refused and told why, and nothing of theirs gets in.
func TestRecoverFromALostMajority(t *testing.T) {
	t.Parallel()
	boxes := three(t)
	home, c := boxes[0], boxes[2]
	run := home.submit("job: recover").Run.Spec.Run
	c.leased(run, 3, 1)
	if err := c.did(run, 1, 20); err != nil {
		t.Fatal(err)
	}
	c.close()
	if _, err := c.plan(); err == nil || !strings.Contains(err.Error(), "there is nothing to recover: 3 of 3 voters are up") {
		t.Fatalf("with a majority: %v", err)
	}
	boxes[0].close()
	boxes[1].close()
	alone := c.recovered(run)
	alone.apart(boxes[0].again(), boxes[1].again(), run)
	alone.andAgain()
}

// recovered goes on without the others, of which none answers, from step 20 of the run.
func (b *box) recovered(run string) (alone *box) {
	t := b.t
	r, err := b.plan()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Record.ThrownOut) != 2 || r.Record.Epoch != 2 || len(r.Record.Runs) != 1 || r.Record.Runs[0].Step != 20 || len(r.Up) != 0 {
		t.Errorf("plan: %v, up %v", r.Record, r.Up)
	}
	if err := r.CarryOut(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	alone = b.again()
	if err := alone.Ready(alone.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	if back := alone.leased(run, 1, 2); back.HomeNode() != b.ID() || back.Step != 20 {
		t.Errorf("the run: %v", back)
	}
	reply, err := alone.ctl.Cluster(alone.ctx(enough), &proto.ClusterRequest{})
	if err != nil || len(reply.Recoveries) != 1 || reply.Recoveries[0].By != "somebody" || len(reply.Nodes) != 1 {
		t.Errorf("on record: %v, %v", reply, err)
	}
	return alone
}

// apart sees the others come back: two of three voters of their own cluster, who go on as it. Neither is ever part of the other.
func (b *box) apart(x, y *box, run string) {
	t, before := b.t, b.raft.CurrentTerm()
	eventually(t, "the others elect a leader", func() bool { return x.leads() || y.leads() })
	eventually(t, "their run", func() bool { return x.Run(run).GetStep() == 20 })
	if err := x.did(run, 21, 25); err != nil {
		t.Error(err)
	}
	if err := b.did(run, 21, 23); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * time.Second) // in which they would find each other
	if b.raft.CurrentTerm() != before || !b.leads() || b.gossip.list.NumMembers() != 1 || b.Run(run).Step != 23 {
		t.Errorf("the other half got in: term %d, was %d; %d in gossip; step %d", b.raft.CurrentTerm(), before, b.gossip.list.NumMembers(), b.Run(run).Step)
	}
	y.close() // now x has no leader, looks around, and finds out
	eventually(t, "the lost node is told", func() bool { return x.Outcast() != nil })
	if why := x.Outcast().Error(); !strings.Contains(why, "recovered without this node") || !strings.Contains(why, "`lorad join` with a new token") {
		t.Errorf("told: %s", why)
	}
}

// andAgain: who joins anew is let in, and a second recovery has the next epoch.
func (b *box) andAgain() {
	t := b.t
	d := b.join(b.token(1, time.Minute))
	if err := d.Ready(d.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	if ca.Epoch(d.creds.ClusterID) != 2 {
		t.Errorf("joined cluster %s", d.creds.ClusterID)
	}
	b.close()
	d.close()
	r, err := d.plan()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Record.Epoch != 3 || r.Voters != 1 {
		t.Errorf("a standby's plan: %v", r.Record)
	}
}

// TestRecoverRefuses: without the authority nobody could ever join, and a node that has seen more is the one to go on from.
func TestRecoverRefuses(t *testing.T) {
	t.Parallel()
	boxes := with(t, 4, time.Hour)
	eventually(t, "three voters", func() bool { v, _ := boxes[0].voters(); return v == 3 })
	var voters []*box
	var b *box
	for _, x := range boxes {
		if boxes[0].statusOf(x.ID()).Votes {
			voters = append(voters, x)
		} else {
			b = x
		}
	}
	b.close()
	voters[0].submit("job: more")
	voters[1].close()
	voters[2].close()
	if _, err := b.plan(); err == nil || !strings.Contains(err.Error(), "is up and has seen more") {
		t.Errorf("behind the other: %v", err)
	}
	if err := os.Remove(filepath.Join(b.dir, "cluster.secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.plan(); err == nil || !strings.Contains(err.Error(), "does not hold the cluster's authority") {
		t.Errorf("without the authority: %v", err)
	}
	if _, err := PlanRecovery(t.Context(), t.TempDir(), "x", quietLog()); err == nil {
		t.Error("recovered from nothing")
	}
}
