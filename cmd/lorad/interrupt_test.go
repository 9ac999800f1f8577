package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The first Ctrl-C ends a verb that only computes.
func TestCtrlCEndsWhatComputes(t *testing.T) {
	cmd := exec.Command(os.Args[0], "generate", "-")
	cmd.Env = append(os.Environ(), beLorad+"=1", "LORAD_DIR="+t.TempDir())
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	if _, err := in.Write([]byte(strings.Repeat("word ", 1<<15))); err != nil { // more than a pipe holds: it reads, and waits for the rest
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d, %q", code, &said)
	}
}
