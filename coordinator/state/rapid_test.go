package state

import (
	"slices"
	"testing"

	pb "google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"lorad/proto"
)

// anyCommand draws from a small world, so that commands meet each other: three nodes, two runs, two tokens.
func anyCommand(t *rapid.T) *proto.Command {
	node := rapid.SampledFrom([]string{"a", "b", "c", ""})
	run := rapid.SampledFrom([]string{"r", "r", "s"})
	small := rapid.Uint64Range(0, 12)
	c := &proto.Command{NowUnixMs: rapid.Int64Range(0, 1<<40).Draw(t, "now"), Id: rapid.SampledFrom([]string{"", "", "x", "y"}).Draw(t, "id")}
	switch rapid.IntRange(0, 14).Draw(t, "kind") {
	case 0:
		c.Do = putNode(node.Draw(t, "node"), "host").Do
	case 1:
		c.Do = &proto.Command_RemoveNode{RemoveNode: &proto.RemoveNode{Id: node.Draw(t, "node"), Heir: node.Draw(t, "heir")}}
	case 2:
		c.Do = putToken("t", uint32(small.Draw(t, "uses")), 1<<39).Do
	case 3:
		c.Do = useToken("t", rapid.Byte().Draw(t, "secret")%2, node.Draw(t, "node"), 1).Do
	case 4:
		c.Do = submit(run.Draw(t, "run"), small.Draw(t, "steps"), node.Draw(t, "home")).Do
	case 5:
		c.Do = &proto.Command_StopRun{StopRun: &proto.StopRun{Run: run.Draw(t, "run"), Settle: rapid.Bool().Draw(t, "settle")}}
	case 6:
		c.Do = &proto.Command_ResumeRun{ResumeRun: &proto.ResumeRun{Run: run.Draw(t, "run")}}
	case 7, 8, 9:
		members := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID).Draw(t, "members")
		c.Do = &proto.Command_GrantLease{GrantLease: &proto.GrantLease{Run: run.Draw(t, "run"), Lease: &proto.Lease{
			Generation: small.Draw(t, "gen") % 5, Members: members, From: small.Draw(t, "from"), Until: small.Draw(t, "until")}}}
	case 10:
		why := &proto.Drain{Reason: "so", Boot: rapid.SampledFrom([]string{"", "p1"}).Draw(t, "boot")}
		c.Do = &proto.Command_DrainNode{DrainNode: &proto.DrainNode{Id: node.Draw(t, "node"), Drain: why, Undo: rapid.Bool().Draw(t, "undo")}}
	case 11:
		c.Do = nil
	default:
		c.Do = &proto.Command_Report{Report: anyReport(t, run.Draw(t, "run"), node.Draw(t, "node"))}
	}
	return c
}

func anyReport(t *rapid.T, run, node string) *proto.Report {
	small := rapid.Uint64Range(0, 12)
	from := small.Draw(t, "first")
	p := &proto.Report{
		Run: run, Node: node, Generation: small.Draw(t, "gen") % 5, Steps: steps(from, from+small.Draw(t, "n")),
		Outcome: proto.Outcome(rapid.IntRange(0, 8).Draw(t, "outcome")), AdapterSha256: sum(1), Suspect: "b",
	}
	if rapid.IntRange(0, 20).Draw(t, "wrong") == 0 {
		for _, s := range p.Steps {
			s.Digest++
		}
	}
	if rapid.Bool().Draw(t, "checkpoint") {
		p.Checkpoint = &proto.Checkpoint{Step: small.Draw(t, "step"), Sha256: sum(2)}
	}
	return p
}

// seeded puts enough into the machine that most drawn commands have something to act on.
func seeded() []*proto.Command {
	first := grant(1, 1, 11, "a", "b")
	return []*proto.Command{putNode("a", "x"), putNode("b", "x"), putNode("c", "x"), submit("r", 10, "a"), first}
}

func TestAnyLogKeepsTheInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := append(seeded(), rapid.SliceOfN(rapid.Custom(anyCommand), 1, 40).Draw(t, "log")...)
		m, twin := New(), New()
		cut := rapid.IntRange(0, len(log)-1).Draw(t, "snapshot at")
		for i, c := range log {
			before, old := hash(t, m), m.Runs()
			_, err := m.Apply(c)
			if err != nil && hash(t, m) != before {
				t.Fatalf("command %d was refused (%v) and changed the state", i, err)
			}
			for _, was := range old {
				checkForward(t, was, m.Run(was.Spec.Run))
			}
			// The twin sees the log as it comes off the disk, and loses its memory once.
			twin.Apply(throughWire(t, c))
			if i == cut {
				twin = reborn(t, twin)
			}
			if hash(t, m) != hash(t, twin) {
				t.Fatalf("replicas differ after command %d: %v", i, c)
			}
		}
	})
}

func checkForward(t *rapid.T, was, is *proto.Run) {
	if is == nil {
		t.Fatalf("run %s vanished", was.Spec.Run)
	}
	if is.Phase != was.Phase && !slices.Contains(transitions[was.Phase], is.Phase) {
		// PENDING may be left in the same command only through the graph, so one step is all there can be.
		t.Fatalf("run %s went from %s to %s", was.Spec.Run, was.Phase, is.Phase)
	}
	if is.Step < was.Step || is.Lease.GetGeneration() < was.Lease.GetGeneration() {
		t.Fatalf("run %s went back: %v after %v", was.Spec.Run, is, was)
	}
	ledger, before := Ledger(is), Ledger(was)
	if uint64(len(ledger)) != is.Step || is.Step > is.Spec.Steps || (is.Archive != nil) != (is.Phase == proto.Phase_DONE) {
		t.Fatalf("run %s: %d records for %d steps of %d", was.Spec.Run, len(ledger), is.Step, is.Spec.Steps)
	}
	for i, s := range ledger {
		if s.Step != uint64(i)+1 || i < len(before) && !pb.Equal(s, before[i]) {
			t.Fatalf("run %s: record %d was rewritten", was.Spec.Run, i)
		}
	}
	if is.Phase == proto.Phase_DONE && is.Step != is.Spec.Steps {
		t.Fatalf("run %s is DONE after %d of %d steps", was.Spec.Run, is.Step, is.Spec.Steps)
	}
}

func hash(t *rapid.T, m *Machine) [32]byte {
	h, err := m.Hash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func throughWire(t *rapid.T, c *proto.Command) *proto.Command {
	b, err := pb.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out := &proto.Command{}
	if err := pb.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func reborn(t *rapid.T, m *Machine) *Machine {
	b, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	fresh := New()
	if err := fresh.Restore(b); err != nil {
		t.Fatal(err)
	}
	return fresh
}
