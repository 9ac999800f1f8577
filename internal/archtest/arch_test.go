// Package archtest holds the design in place: who may import whom, and which packages are pure. A ban stands beside
// its reason; if a change needs an import that is banned, the reason is what to argue with.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "lorad/"

// A ban says that packages under From do not import packages under To, but for those in Except.
type ban struct {
	From, To string
	Except   []string
	Reason   string
}

var bans = []ban{
	{"", "lorad/cmd", nil, "commands are wiring; nothing may depend on them"},
	{"lorad/proto", "lorad", nil, "words on the wire depend on nobody's code"},
	{"lorad/node", "lorad/coordinator", nil, "a node sees the coordinator through node.Control only, so that each can be tested alone"},
	{"lorad/coordinator", "lorad/node", nil, "the coordinator decides on facts; how work is done is the node's business"},
	{"lorad/coordinator", "lorad/engine", nil, "the coordinator is never on the hot path"},
	{"lorad/coordinator", "lorad/allreduce", nil, "gradients never pass the coordinator"},
	{"lorad/coordinator", "lorad/model", nil, "the coordinator does not read models: Prepare does"},
	{"lorad/coordinator", "lorad/data", nil, "the coordinator does not read data: Prepare does"},
	{"lorad/engine", "lorad/node", nil, "an engine computes; it knows no cluster"},
	{"lorad/engine", "lorad/allreduce", nil, "an engine computes; it knows no cluster"},
	{"lorad/engine", "lorad/transport", nil, "no network in an engine"},
	{"lorad/engine", "lorad/proto", nil, "no wire words in an engine"},
	{"lorad/engine", "lorad/data", nil, "an engine sees batches, not where they come from"},
	{"lorad/engine", "os", []string{"lorad/engine/kernel/kerneltest", "lorad/engine/cuda/standin", "lorad/engine/cuda/kernels/gen"}, "no files in an engine"},
	{"lorad/engine", "net", nil, "no network in an engine"},
	{"lorad/model", "lorad/engine", nil, "files of others do not depend on what we compute with them"},
	{"lorad/model", "lorad/node", nil, "files of others do not depend on what we compute with them"},
	{"lorad/allreduce", "lorad/engine", nil, "a sum of integers knows no model"},
	{"lorad/allreduce", "lorad/proto", nil, "its frames are its own"},
	{"lorad/allreduce", "lorad/transport", nil, "it is given connections; how they are made secure is not its business"},
	{"lorad/ca", "lorad/transport", nil, "identity comes before connections"},
	{"lorad/eval", "lorad/engine", nil, "metrics are functions of texts"},
	{"lorad/internal/world", "lorad/engine", nil, "generators write text"},
}

// pure packages take time as a number and randomness as a seed, start no goroutine and do no I/O.
var pure = []string{
	"lorad/coordinator/state", "lorad/coordinator/sched", "lorad/node/step", "lorad/data/curriculum",
	"lorad/engine/estimate", "lorad/engine/lora", "lorad/engine/optim", "lorad/engine/quant", "lorad/eval", "lorad/internal/world", "lorad/internal/chaos", "lorad/node/audit", "lorad/node/best",
}

var impure = map[string]string{
	"os": "I/O", "net": "I/O", "net/http": "I/O", "io/ioutil": "I/O", "log": "I/O", "log/slog": "I/O",
	"math/rand": "its streams change between Go releases and its state is global", "math/rand/v2": "its streams may change between Go releases",
	"crypto/rand": "chance that no seed repeats", "context": "waiting", "os/exec": "I/O",
}

// file is one Go source file that is not a test.
type file struct {
	pkg, path string
	ast       *ast.File
}

func files(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..")
	var out []file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == ".venv") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		out = append(out, file{module + filepath.ToSlash(rel), path, f})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("found %d files only: is the walk broken?", len(out))
	}
	return out
}

// under says whether a package is prefix or below it.
func under(pkg, prefix string) bool {
	return prefix == "" || pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}

func imports(f file) []string {
	var out []string
	for _, s := range f.ast.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		out = append(out, p)
	}
	return out
}

func TestImportLattice(t *testing.T) {
	for _, f := range files(t) {
		for _, p := range imports(f) {
			for _, b := range bans {
				if under(f.pkg, b.From) && under(p, b.To) && !slices.Contains(b.Except, f.pkg) && !under(f.pkg, b.To) {
					t.Errorf("%s imports %s: %s", f.path, p, b.Reason)
				}
			}
		}
	}
}

func TestPurePackages(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range files(t) {
		if !slices.Contains(pure, f.pkg) {
			continue
		}
		seen[f.pkg] = true
		for _, p := range imports(f) {
			if why := impure[p]; why != "" {
				t.Errorf("%s is pure, but imports %s: %s", f.path, p, why)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s is pure, but starts a goroutine", f.path)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && (n.Sel.Name == "Now" || n.Sel.Name == "Since" || n.Sel.Name == "Sleep") {
					t.Errorf("%s is pure, but calls time.%s", f.path, n.Sel.Name)
				}
			}
			return true
		})
	}
	for _, p := range pure {
		if !seen[p] {
			t.Errorf("package %s is said to be pure but does not exist", p)
		}
	}
}
