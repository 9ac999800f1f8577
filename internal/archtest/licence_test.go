package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLicencesAreListed: every module that is linked into the program is in docs/licences.md, in its version.
func TestLicencesAreListed(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "licences.md"))
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("go", "list", "-tags", "cuda", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/lorad")
	list.Dir = root
	list.Env = append(os.Environ(), "CGO_ENABLED=1") // of the full program
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		if path, version, ok := strings.Cut(line, " "); ok {
			modules[path] = version
		}
	}
	if len(modules) < 10 {
		t.Fatalf("%d modules only: is go list broken?", len(modules))
	}
	for path, version := range modules {
		if !listed(string(text), path, version) {
			t.Errorf("%s %s is not in docs/licences.md: run scripts/supply-chain.sh licences", path, version)
		}
	}
}

// listed reports whether a row is of the module or of a package in it, in that version.
func listed(text, path, version string) bool {
	for _, row := range strings.Split(text, "\n") {
		name, rest, _ := strings.Cut(strings.TrimPrefix(row, "| `"), "` | ")
		if (name == path || strings.HasPrefix(name, path+"/")) && strings.HasPrefix(rest, version+" |") {
			return true
		}
	}
	return false
}
