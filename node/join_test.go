package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"lorad/proto"
)

// A node of another build does not get ready for a run, and says why in one sentence, once.
func TestOtherBuildTakesNoPart(t *testing.T) {
	members := &proto.Node{Id: "a", Name: "first", Version: "v1"}
	run := &proto.Run{Spec: &proto.Spec{Run: "r", Steps: 100}, Phase: proto.Phase_RUNNING, Lease: &proto.Lease{Members: []string{"a"}}}
	for version, want := range map[string]string{
		"v1": "",
		"v2": "this node runs lorad v2 and takes no part: the run is on lorad v1 (first)",
	} {
		var said bytes.Buffer
		n := &Node{said: map[string]string{}, unfit: map[string]bool{}, cfg: Config{ID: "b", Log: slog.New(slog.NewTextHandler(&said, nil)),
			Control: &cluster{nodes: []*proto.Node{members, {Id: "b", Version: version}}}}}
		for range 3 {
			if got := n.volunteers(run); got != (want == "") {
				t.Errorf("version %s: gets ready: %v", version, got)
			}
		}
		if strings.Count(said.String(), "takes no part") != strings.Count(want, "takes no part") || !strings.Contains(said.String(), want) {
			t.Errorf("version %s said %q, want %q once", version, said.String(), want)
		}
	}
}
