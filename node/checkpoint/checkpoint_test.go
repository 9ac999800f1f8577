package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lorad/engine"
	"lorad/engine/optim"
	"lorad/node/replica"
)

type vector struct {
	engine.Trainer
	p []float32
}

func (v *vector) Params() []float32 { return v.p }
func (v *vector) Changed()          {}
func (v *vector) Layout() []engine.Tensor {
	return []engine.Tensor{{Name: "x", Shape: []int{len(v.p)}}}
}

func at(steps int) *replica.Replica {
	r := replica.New(&vector{p: []float32{1, 2, 3}}, replica.Rule{
		AdamW:    optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8},
		Schedule: optim.Schedule{Kind: "constant", Peak: 0.1, Total: 10},
	})
	for range steps {
		r.Step([]float32{1, 1, 1})
	}
	return r
}

func nothing(string) error { return nil }

func save(t *testing.T, dir string, steps int) {
	t.Helper()
	if _, _, err := Save(dir, "run", at(steps), nothing); err != nil {
		t.Fatal(err)
	}
}

func TestRestoreTakesNewestIntact(t *testing.T) {
	dir := t.TempDir()
	for _, s := range []int{1, 2, 10} {
		save(t, dir, s)
	}
	r := at(0)
	if step, passed := Restore(dir, "run", 10, r); step != 10 || len(passed) > 0 || r.Digest() != at(10).Digest() {
		t.Fatalf("step %d, passed %v", step, passed)
	}
	state := filepath.Join(Path(dir, 10), stateFile)
	data, _ := os.ReadFile(state)
	data[40] ^= 1
	os.WriteFile(state, data, 0o600)
	os.WriteFile(filepath.Join(Path(dir, 2), metaFile), []byte("{"), 0o600)
	r = at(0)
	step, passed := Restore(dir, "run", 10, r)
	if step != 1 || len(passed) != 2 || r.Digest() != at(1).Digest() {
		t.Fatalf("step %d, passed %v", step, passed)
	}
	if !strings.Contains(passed[0].Error(), "step 10: state.bin is damaged") {
		t.Errorf("unclear: %v", passed[0])
	}
}

func TestRestoreLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 3)
	r := at(0)
	step, passed := Restore(dir, "another", 10, r)
	if step != 0 || len(passed) != 1 || r.Done() != 0 || !strings.Contains(passed[0].Error(), `belongs to run "run"`) {
		t.Fatalf("step %d, passed %v", step, passed)
	}
}

func TestFailedSaveKeepsThePrevious(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 1)
	full := errors.New("no space left on device")
	if _, _, err := Save(dir, "run", at(2), func(string) error { return full }); !errors.Is(err, full) {
		t.Fatalf("got %v", err)
	}
	if got := List(dir); !slices.Equal(got, []uint64{1}) {
		t.Fatalf("have %v", got)
	}
}

func TestRotateKeepsNewest(t *testing.T) {
	dir := t.TempDir()
	for _, s := range []int{1, 2, 10} {
		save(t, dir, s)
	}
	if err := Rotate(dir, 2, 10, 0); err != nil || !slices.Equal(List(dir), []uint64{2, 10}) {
		t.Fatalf("have %v (%v)", List(dir), err)
	}
}

// The best one stays, and is none of those that are kept because they are new.
func TestRotateKeepsBest(t *testing.T) {
	dir := t.TempDir()
	for _, s := range []int{1, 2, 5, 10} {
		save(t, dir, s)
	}
	if err := Rotate(dir, 1, 10, 2); err != nil || !slices.Equal(List(dir), []uint64{2, 10}) {
		t.Fatalf("have %v (%v)", List(dir), err)
	}
}

// What is newer than the ledger is not restored, and what would be restored is not rotated away.
func TestLedgerBoundsWhatIsRestored(t *testing.T) {
	dir := t.TempDir()
	for _, s := range []int{1, 2, 5, 10} {
		save(t, dir, s)
	}
	if step, passed := Restore(dir, "run", 4, at(0)); step != 2 || len(passed) > 0 {
		t.Fatalf("step %d, passed %v", step, passed)
	}
	if err := Rotate(dir, 1, 3, 0); err != nil || !slices.Equal(List(dir), []uint64{2, 5, 10}) {
		t.Fatalf("have %v (%v)", List(dir), err)
	}
	if err := Rotate(dir, 1, 7, 0); err != nil || !slices.Equal(List(dir), []uint64{5, 10}) {
		t.Fatalf("have %v (%v)", List(dir), err)
	}
}
