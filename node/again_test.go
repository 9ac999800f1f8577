package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"lorad/embedded"
	"lorad/engine"
	"lorad/proto"
)

// closable is a trainer on a GPU, as far as it has to be given back.
type closable struct {
	engine.Trainer
	closed int
}

func (c *closable) Close() error {
	c.closed++
	return nil
}

// A node whose output_dir could not be made gets ready again later. What it took for the first try is given back before the second, or
// its own GPUs would have no room for it; and the second trainer is as lean as the first one was.
func TestGettingReadyAgain(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "d.jsonl")
	if err := os.WriteFile(data, []byte(`{"text": "one"}`+"\n"+`{"text": "two"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{ID: "a", Dir: filepath.Join(dir, "state"), Threads: 1, Embedded: embedded.Base(), Log: slog.New(slog.DiscardHandler), Control: &cluster{}})
	if err != nil {
		t.Fatal(err)
	}
	n.oomKills = func() (string, int64) { return "boot", 0 }
	spec, err := n.Prepare(t.Context(), &proto.SubmitRequest{Dir: dir, JobYaml: "base_model: embedded\ndatasets: [{path: d.jsonl}]\noutput_dir: out\ndevice: cpu\n"})
	if err != nil {
		t.Fatal(err)
	}
	before, err := n.beginAttempt(spec.Run)
	if err != nil {
		t.Fatal(err)
	}
	before.note(1)

	w := newWorker(n, &proto.Run{Spec: spec, Home: "b"})
	w.dir = filepath.Join(data, "below a file")
	if err := w.prepare(t.Context()); err == nil {
		t.Fatal("prepared below a file")
	}
	all := []engine.Trainer{&closable{Trainer: w.trainer}, &closable{Trainer: w.trainer}}
	w.trainer, w.lanes = all[0], newLanes(all)
	w.dir = filepath.Join(dir, "out")
	if err := w.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, c := range all {
		if got := c.(*closable).closed; got != 1 {
			t.Errorf("GPU %d was given back %d times", i, got)
		}
	}
	if w.lanes != nil {
		t.Error("the GPUs of the first try still compute")
	}
	if w.lean != 1 || w.trainer.(engine.Thrifty).Growth(w.recipe.Micro(0, 0)) == 0 {
		t.Errorf("asked %d times to do with less, want once", w.lean)
	}
	w.giveBack()
}
