package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lorad/internal/durable"
)

// An attempt is one process's work on one run. It is on disk as long as the work goes on: a process that finds one which
// it has not made follows one that was ended. If the kernel has ended any process for lack of memory since, that may
// have been it, and the next attempt takes less memory from the start.
type attempt struct {
	path string

	Boot  string `json:"boot"`      // of the machine
	Kills int64  `json:"oom_kills"` // processes that the kernel had ended for lack of memory when it began
	Lean  int    `json:"lean"`      // times that the trainer was asked to do with less
}

// leanMost is how often the layers of any model can be halved, and more.
const leanMost = 12

// beginAttempt says how lean to begin.
func (n *Node) beginAttempt(run string) (*attempt, error) {
	dir := filepath.Join(n.cfg.Dir, "attempts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("begin work on run %s: %w", run, err)
	}
	now := &attempt{path: filepath.Join(dir, run+".json")}
	now.Boot, now.Kills = n.oomKills()
	var last attempt
	if text, err := os.ReadFile(now.path); err == nil && json.Unmarshal(text, &last) == nil {
		now.Lean = max(0, last.Lean)
		if last.Boot == now.Boot && now.Kills > last.Kills {
			now.Lean++
			n.cfg.Log.Warn("the kernel has ended a process for lack of memory while this node last worked on the run: it takes less memory now", "run", run)
		}
	}
	if err := now.write(); err != nil {
		return nil, err
	}
	if now.Lean > leanMost {
		return nil, &unfitError{fmt.Errorf("the kernel has ended it %d times for lack of memory; delete %s to have it try again", now.Lean, now.path)}
	}
	return now, nil
}

func (a *attempt) write() error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return durable.WriteFile(a.path, text, 0o600)
}

// note is for the next attempt, should this one be ended.
func (a *attempt) note(lean int) {
	if a != nil && lean > a.Lean {
		a.Lean = lean
		_ = a.write() // at worst the next one has to find out again
	}
}

// end says that this attempt was not ended by anybody.
func (a *attempt) end() {
	if a != nil {
		os.Remove(a.path)
	}
}

// oomKills counts the processes that the kernel has ended for lack of memory since the machine was started.
func oomKills() (boot string, kills int64) {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	kills, _ = field("/proc/vmstat", "oom_kill")
	return strings.TrimSpace(string(id)), kills
}

// careful makes the trainer as lean as the last attempts tell.
func (w *worker) careful() {
	for w.lean < w.attempt.Lean && w.leaner() {
	}
}
