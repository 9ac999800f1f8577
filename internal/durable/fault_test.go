package durable_test

import (
	"errors"
	"fmt"
	"io"
	"path"
	"syscall"
	"testing"

	"lorad/internal/durable"
	"lorad/internal/durable/crashfs"
)

const (
	folder = "/data/checkpoint-1"
	single = "/data/facts.json"
)

// put writes two files into a new directory.
func put(disk durable.FS, text string) func(string) error {
	return func(tmp string) error {
		for _, name := range []string{"a", "b"} {
			f, err := disk.Create(path.Join(tmp, name), 0o600)
			if err != nil {
				return err
			}
			for range 3 {
				if _, err := io.WriteString(f, text); err != nil {
					f.Close()
					return err
				}
			}
			if err := f.Close(); err != nil {
				return err
			}
		}
		return nil
	}
}

func content(disk durable.FS, p string) string {
	f, err := disk.Open(p)
	if err != nil {
		return "missing"
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// whole is what the directory holds, "" if it is not there, "torn" if it is half there.
func whole(disk durable.FS) string {
	a, b := content(disk, folder+"/a"), content(disk, folder+"/b")
	switch {
	case a == "missing" && b == "missing":
		return ""
	case a == b && len(a) == 9:
		return a[:3]
	}
	return "torn"
}

// Every operation of every write fails once, from then on, or with the power: what is there is the old or the new, and
// the new if the writer was told so.
func TestEveryOperationFails(t *testing.T) {
	for name, kind := range map[string]crashfs.Fault{"once": crashfs.Once, "full": crashfs.Full, "power": crashfs.Power} {
		t.Run(name, func(t *testing.T) {
			for at, reached := 0, true; reached; at++ {
				disk := crashfs.New()
				must(t, disk.MkdirAll("/data"))
				must(t, durable.WriteFileOn(disk, single, []byte("old"), 0o600))
				must(t, durable.DirOn(disk, "/data/other", put(disk, "old")))
				disk.Fault, disk.At = kind, disk.Ops+at
				file := durable.WriteFileOn(disk, single, []byte("new"), 0o600)
				dir := durable.DirOn(disk, folder, put(disk, "new"))
				reached = disk.Ops > disk.At
				if kind != crashfs.Power && reached && !errors.Is(errors.Join(file, dir), syscall.ENOSPC) {
					t.Fatalf("operation %d failed and nobody was told: %v, %v", at, file, dir)
				}
				check(t, fmt.Sprintf("operation %d", at), disk, file, dir)
				for seed := range uint64(8) {
					check(t, fmt.Sprintf("operation %d, power cut %d", at, seed), disk.Crash(seed), file, dir)
				}
			}
		})
	}
}

func check(t *testing.T, when string, disk *crashfs.FS, file, dir error) {
	t.Helper()
	if got := content(disk, single); got != "new" && (got != "old" || file == nil) {
		t.Fatalf("%s: the file holds %q, its writer was told: %v", when, got, file)
	}
	if got := whole(disk); got != "new" && (got != "" || dir == nil) {
		t.Fatalf("%s: the directory holds %q, its writer was told: %v", when, got, dir)
	}
	if content(disk, "/data/other/a") != "oldoldold" {
		t.Fatalf("%s: a bystander was hurt", when)
	}
	disk.Fault = crashfs.None
	must(t, durable.Sweep(disk, "/data", "checkpoint-"))
	must(t, durable.Sweep(disk, "/data", "facts"))
	entries, err := disk.ReadDir("/data")
	if err != nil || len(entries) > 3 {
		t.Fatalf("%s: something is left over: %v (%v)", when, entries, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The file system itself: what is not flushed may be lost, in part.
func TestPowerCutLosesWhatIsNotFlushed(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(50) {
		disk := crashfs.New()
		must(t, disk.MkdirAll("/data"))
		f, err := disk.Create("/data/f", 0o600)
		must(t, err)
		io.WriteString(f, "ab")
		must(t, f.Sync())
		io.WriteString(f, "cd")
		seen[content(disk.Crash(seed), "/data/f")] = true
	}
	for _, want := range []string{"missing", "ab", "abc", "abcd"} {
		if !seen[want] {
			t.Errorf("no power cut leaves %q, only %v", want, seen)
		}
	}
}
