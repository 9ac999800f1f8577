package state

import (
	"strings"
	"testing"
	"unicode/utf8"

	"lorad/proto"
)

// A long text is cut, and never within a character: a protocol buffer takes no string that is not UTF-8, so a state with one in it
// could be neither saved nor shown.
func TestLongWordsAreCutBetweenCharacters(t *testing.T) {
	long := strings.Repeat("a", maxDetail-1) + "é and more"
	b := newBench(t)
	check := func(what, said string) {
		t.Helper()
		if !utf8.ValidString(said) || len(said) > maxDetail+64 || !strings.Contains(said, long[:maxDetail-1]) {
			t.Errorf("%s: %d bytes, ending in %q", what, len(said), said[len(said)-8:])
		}
		if _, err := b.m.Snapshot(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	b.ok(grant(1, 1, 11, "a", "b"))
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Detail: long}))
	check("a complaint", b.m.Run("r").Reason)
	b.ok(report(&proto.Report{Generation: 1, Node: "b", Outcome: proto.Outcome_ABORTED, Detail: long}))
	check("trouble", b.m.Run("r").Trouble.Detail)
	drain := &proto.DrainNode{Id: "b", Drain: &proto.Drain{Reason: long}}
	check("a drain", b.ok(&proto.Command{Do: &proto.Command_DrainNode{DrainNode: drain}}).Node.Drain.Reason)
	stop := &proto.StopRun{Run: "r", Reason: long}
	check("a stop", b.ok(&proto.Command{Do: &proto.Command_StopRun{StopRun: stop}}).Run.Reason)
}
