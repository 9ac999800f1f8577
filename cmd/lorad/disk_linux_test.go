package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lorad/proto"
)

// smallDisk mounts a file system of its own on dir, which needs root.
func smallDisk(t *testing.T, dir string, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	switch err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); {
	case errors.Is(err, syscall.EPERM):
		t.Skip("mounting a small file system needs root")
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// fill leaves no room at all on the disk of dir.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(bytes.Repeat([]byte{1}, size)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			size /= 2
		}
	}
}

// The disk of one node has no room left in the middle of the run: it goes on training, says that its checkpoints are
// not saved, and acknowledges none; the others' are.
func TestFullDiskKeepsTraining(t *testing.T) {
	j := tiny{Steps: endless}
	_, req := lay(t, j)
	disk := filepath.Join(t.TempDir(), "small")
	smallDisk(t, disk, "size=40m")
	c := clusterOf(t, 3, func(n *localNode) error {
		if n.name == "node-3" {
			n.dir = filepath.Join(disk, "node")
		}
		return nil
	})
	said := ""
	saved := func(r *proto.Run) bool { return len(r.Checkpoints) > 0 && len(r.Checkpoints[0].Nodes) == 3 }
	r := runUntil(t, c.nodes[0], c.nodes[0], req, inTurn(
		when(saved, func() { fill(t, disk) }),
		func(e *proto.FollowEvent) bool {
			said = e.Run.Reason
			return strings.Contains(said, "was not saved")
		},
		more(30), // a checkpoint is among them
	))
	asUndisturbed(t, j, r)
	if !strings.Contains(said, "no space left on device") || !strings.Contains(said, "training goes on") {
		t.Errorf("the run said: %q", said)
	}
	if r.GetLease().GetGeneration() != 1 || len(r.Lease.Members) != 3 {
		t.Errorf("generation %d of %d members: the node was lost", r.Lease.Generation, len(r.Lease.Members))
	}
	// The home node's acknowledgement ends the run; that of the third node may come too late to be recorded.
	if last := lastCheckpoint(r).Nodes; len(last) > 2 || !slices.Contains(last, r.Spec.HomeNode) {
		t.Errorf("the last checkpoint is on %v", last)
	}
}

func lastCheckpoint(r *proto.Run) *proto.Checkpoint { return r.Checkpoints[len(r.Checkpoints)-1] }
