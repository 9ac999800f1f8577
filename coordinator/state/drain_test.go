package state

import (
	"testing"

	"lorad/proto"
)

// What a process wanted ends with it; what a person wanted outlives it, and a node that records its facts anew.
func TestDrainOfAProcessAndOfAPerson(t *testing.T) {
	m := New()
	do := func(c *proto.Command) *proto.Drain {
		t.Helper()
		r, err := m.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		return r.Node.Drain
	}
	drain := func(boot string, undo bool) *proto.Command {
		return &proto.Command{NowUnixMs: 7, Do: &proto.Command_DrainNode{DrainNode: &proto.DrainNode{Id: "a", Drain: &proto.Drain{Reason: "so", Boot: boot}, Undo: undo}}}
	}
	do(putNode("a", "x"))
	if d := do(drain("p1", false)); d.GetBoot() != "p1" || d.UnixMs != 7 {
		t.Errorf("drained by its process: %v", d)
	}
	if d := do(drain("", false)); d == nil || d.Boot != "" {
		t.Errorf("and by a person: %v", d)
	}
	if d := do(drain("p2", false)); d == nil || d.Boot != "" {
		t.Errorf("and by its next process: %v", d)
	}
	if d := do(putNode("a", "x")); d == nil {
		t.Error("recording the node lets it work again")
	}
	if d := do(drain("", true)); d != nil {
		t.Errorf("after undo: %v", d)
	}
}
