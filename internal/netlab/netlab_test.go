package netlab

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLab: nodes reach each other until a cable is cut, and again when it is mended; nothing is left behind.
func TestLab(t *testing.T) {
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	l, err := New(3, "100mbit")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reach := func(from, to int) bool {
		return exec.Command("ip", "-n", l.Namespace(from), "neigh", "flush", "all").Run() == nil &&
			l.Command(from, "bash", "-c", "echo > /dev/udp/"+l.Addr(to)+"/9; sleep 0.3; ip neigh show "+l.Addr(to)+" | grep lladdr").Run() == nil
	}
	if !reach(0, 1) || !reach(2, 0) {
		t.Error("nodes do not reach each other")
	}
	if err := l.Cut(1); err != nil {
		t.Fatal(err)
	}
	if reach(0, 1) || !reach(0, 2) {
		t.Error("a cut cable carries on, or others do not")
	}
	if err := l.Mend(1); err != nil || !reach(0, 1) {
		t.Error("a mended cable does not carry", err)
	}
	if n, err := l.Sent(0); err != nil || n == 0 {
		t.Error("nothing counted", n, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if out, _ := exec.Command("ip", "netns", "list").Output(); strings.Contains(string(out), l.name) {
		t.Errorf("left behind: %s", out)
	}
}
