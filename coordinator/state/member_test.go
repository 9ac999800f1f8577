package state

import (
	"fmt"
	"testing"

	"lorad/proto"
)

func leaseOf(run string, c *proto.Command) *proto.Command {
	c.GetGrantLease().Run = run
	return c
}

// A witness votes. The token decides who may: one for workers makes no witness, one for witnesses makes nothing else.
func TestWitness(t *testing.T) {
	b := newBench(t)
	token := func(role string) *proto.Command {
		c := putToken(role, 9, 5000)
		c.GetPutToken().Token.Role = role
		return c
	}
	wish := func(id, node string, witness bool) *proto.Command {
		c := useToken(id, 1, node, node[0])
		c.GetUseToken().Node.Witness = witness
		return c
	}
	for _, role := range []string{Witness, Voter, Worker} {
		b.ok(token(role))
	}
	b.refused(WrongRole, wish(Worker, "p", true))
	for _, c := range []*proto.Command{wish(Witness, "q", false), wish(Witness, "r", true), wish(Voter, "s", true)} {
		if n := b.ok(c).Node; !n.Witness || !n.Voter {
			t.Errorf("recorded as %v", n)
		}
	}
	if n := b.ok(wish(Voter, "u", false)).Node; n.Witness || !n.Voter {
		t.Errorf("recorded as %v", n)
	}
}

// The home of a run may go: another node writes the output. What only the old home had can be submitted again.
func TestRunsMoveWhenTheirHomeIsRemoved(t *testing.T) {
	b := newBench(t)
	for _, r := range []string{"begun", "unbegun", "done"} {
		b.ok(submit(r, 4, "a"))
	}
	b.ok(leaseOf("begun", grant(1, 1, 5, "a", "b")))
	b.ok(&proto.Command{Do: &proto.Command_Report{Report: &proto.Report{Run: "begun", Node: "b", Generation: 1, Steps: steps(1, 4)}}})
	remove := func(id, heir string) *proto.Command {
		return &proto.Command{Do: &proto.Command_RemoveNode{RemoveNode: &proto.RemoveNode{Id: id, Heir: heir}}}
	}
	b.refused(Illegal, remove("a", ""))
	b.refused(Illegal, remove("a", "a"))
	b.ok(remove("a", "b"))
	b.ok(remove("a", "b")) // the reply was lost
	finished := func(gen uint64) *proto.Command {
		return &proto.Command{Do: &proto.Command_Report{Report: &proto.Report{Run: "begun", Node: "b", Generation: gen, Outcome: proto.Outcome_FINISHED, AdapterSha256: sum(1)}}}
	}
	if r := b.ok(finished(1)).Run; r.Phase == proto.Phase_DONE || r.HomeNode() != "b" || r.Trouble == nil {
		t.Errorf("done before the new home wrote the output: %v", r)
	}
	b.ok(leaseOf("begun", grant(2, 5, 5, "b")))
	if r := b.ok(finished(2)).Run; r.Phase != proto.Phase_DONE {
		t.Errorf("not done: %v", r)
	}
	if r := b.m.Run("unbegun"); r.Phase != proto.Phase_FAILED {
		t.Errorf("a run whose inputs are gone: %v", r)
	}
	b.ok(submit("unbegun", 4, "b"))
	if r := b.ok(&proto.Command{Do: &proto.Command_ResumeRun{ResumeRun: &proto.ResumeRun{Run: "unbegun"}}}).Run; r.HomeNode() != "b" || r.Phase != proto.Phase_PENDING {
		t.Errorf("submitted again: %v", r)
	}
}

// A stop whose reply was lost is tried again after somebody else has resumed the run: it must not stop it twice.
func TestCommandsWithAnIDAreCarriedOutOnce(t *testing.T) {
	b := newBench(t)
	named := func(id string, c *proto.Command) *proto.Command {
		c.Id = id
		return c
	}
	b.ok(named("1", stop(false)))
	b.ok(named("2", resume()))
	b.ok(named("1", stop(false)))
	b.phase(proto.Phase_PENDING)
	first := b.ok(named("3", submit("s", 4, "a")))
	again := b.ok(named("3", submit("s", 4, "a")))
	if first.Existed || again.Existed || !b.ok(named("4", submit("s", 4, "a"))).Existed {
		t.Error("a submission that is tried again takes itself for another one's")
	}
	for i := range 2 * remembered {
		b.ok(named(fmt.Sprint("many", i), resume()))
	}
	if n := len(b.m.done); n != remembered {
		t.Errorf("%d commands are remembered", n)
	}
	b.refused(Invalid, named(string(make([]byte, 65)), resume()))
}
