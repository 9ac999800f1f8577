package node

import (
	"os"
	"path/filepath"
	"testing"

	"lorad/job"
)

// TestJobsFromElsewhereStayInTheWorkspace: by name, by .. and by symbolic links, of files that exist and that do not.
func TestJobsFromElsewhereStayInTheWorkspace(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	for _, link := range [][2]string{{outside, "out"}, {filepath.Join(outside, "new"), "dangling"}, {filepath.Join(root, "base"), "inside"}} {
		if err := os.Symlink(link[0], filepath.Join(root, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "base"), 0o755); err != nil {
		t.Fatal(err)
	}
	check := func(j job.Job) error {
		if j.BaseModel == "" {
			j.BaseModel = EmbeddedBase
		}
		return confine(j.Resolve(root, func(p string) bool { return p == EmbeddedBase }), root)
	}
	everywhere := func(p string) []job.Job {
		return []job.Job{
			{BaseModel: p}, {OutputDir: p}, {LoraModelDir: p}, {Datasets: []job.Dataset{{Path: p}}}, {TestDatasets: []job.Dataset{{Path: p}}},
		}
	}
	for _, p := range []string{"base", "inside", "inside/x", "new/deeper", "base/../base"} {
		for _, j := range everywhere(p) {
			if err := check(j); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
	bad := []string{"..", "../x", "base/../../x", "/etc/passwd", outside, "out", "out/x", "out/new/deeper", "dangling", "dangling/x", ".", root + "-other"}
	for _, p := range bad {
		for _, j := range everywhere(p) {
			if check(j) == nil {
				t.Errorf("%s: allowed in %+v", p, j)
			}
		}
	}
}
