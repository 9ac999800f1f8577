// Package checkpoint keeps replicas on disk for the day the power goes.
//
// A checkpoint is a directory checkpoint-<step> under the run's output directory. It holds the adapter as PEFT loads
// it (so a checkpoint can be tried or served as it is), state.bin (package replica's format) and lorad_state.json,
// which says whose it is and the SHA-256 of state.bin. It appears whole or not at all (package durable). Restore takes
// the newest one that proves intact and says which it had to pass over.
package checkpoint

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lorad/internal/durable"
	"lorad/node/replica"
)

const (
	prefix    = "checkpoint-"
	stateFile = "state.bin"
	metaFile  = "lorad_state.json"
)

// Meta is lorad_state.json.
type Meta struct {
	Version     int    `json:"version"`
	Run         string `json:"run"`
	Step        uint64 `json:"step"`
	StateSHA256 string `json:"state_sha256"`
}

// Path is the directory of the checkpoint of a step.
func Path(dir string, step uint64) string {
	return filepath.Join(dir, prefix+strconv.FormatUint(step, 10))
}

// Save makes the checkpoint of the replica's present step under dir; extra adds the files that people use (adapter,
// log, tokenizer). It returns the SHA-256 of the state, which is the same on every member of the run.
func Save(dir, run string, r *replica.Replica, extra func(tmp string) error) (step uint64, sum []byte, err error) {
	step = r.Done()
	err = durable.Dir(Path(dir, step), func(tmp string) error {
		if err := extra(tmp); err != nil {
			return err
		}
		sum, err = writeState(filepath.Join(tmp, stateFile), r, step)
		if err != nil {
			return err
		}
		return writeMeta(filepath.Join(tmp, metaFile), Meta{1, run, step, hex.EncodeToString(sum)})
	})
	return step, sum, err
}

func writeState(path string, r *replica.Replica, step uint64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if err := r.EncodeAt(io.MultiWriter(f, h), step); err != nil {
		return nil, err
	}
	return h.Sum(nil), f.Close()
}

func writeMeta(path string, m Meta) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// Restore puts the newest intact checkpoint of the run into r and returns its step (0: there is none, r is
// untouched) and what was wrong with newer ones. committed is the last step in the ledger: a checkpoint of a later
// step is left alone, because the records of the steps between died with whoever made them. They are done again, with
// the same bits.
func Restore(dir, run string, committed uint64, r *replica.Replica) (step uint64, passed []error) {
	for _, s := range slices.Backward(List(dir)) {
		if s > committed {
			continue
		}
		err := load(Path(dir, s), run, s, r)
		if err == nil {
			return s, passed
		}
		passed = append(passed, fmt.Errorf("checkpoint of step %d: %w", s, err))
	}
	return 0, passed
}

// Check reads the checkpoint of a step and reports whether it is intact and holds the state with the given SHA-256.
func Check(dir string, step uint64, sum []byte) error {
	meta, err := readMeta(filepath.Join(Path(dir, step), metaFile))
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(Path(dir, step), stateFile))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := intact(f, meta); err != nil {
		return err
	}
	if meta.StateSHA256 != hex.EncodeToString(sum) {
		return fmt.Errorf("it holds the state %.12s, want %x", meta.StateSHA256, sum[:6])
	}
	return nil
}

func intact(state io.Reader, meta Meta) error {
	h := sha256.New()
	if _, err := io.Copy(h, state); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != meta.StateSHA256 {
		return fmt.Errorf("%s is damaged: SHA-256 %.12s, want %.12s", stateFile, got, meta.StateSHA256)
	}
	return nil
}

func load(path, run string, step uint64, r *replica.Replica) error {
	meta, err := readMeta(filepath.Join(path, metaFile))
	if err != nil {
		return err
	}
	if meta.Run != run || meta.Step != step {
		return fmt.Errorf("it belongs to run %q step %d; use another output_dir or remove it", meta.Run, meta.Step)
	}
	f, err := os.Open(filepath.Join(path, stateFile))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := intact(f, meta); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return r.Decode(bufio.NewReaderSize(f, 1<<20))
}

func readMeta(path string) (Meta, error) {
	var m Meta
	data, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", metaFile, err)
	}
	if m.Version != 1 {
		return m, fmt.Errorf("%s: version %d, this lorad reads version 1", metaFile, m.Version)
	}
	return m, nil
}

// List returns the steps that have a checkpoint directory, ascending.
func List(dir string) []uint64 {
	entries, _ := os.ReadDir(dir)
	var steps []uint64
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		step, err := strconv.ParseUint(rest, 10, 64)
		if ok && err == nil && e.IsDir() {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return steps
}

// Rotate removes the oldest checkpoints beyond keep, but never the newest one that Restore would take; keep = 0 keeps
// all.
func Rotate(dir string, keep int, committed uint64) error {
	steps := List(dir)
	if keep <= 0 || len(steps) <= keep {
		return nil
	}
	old := steps[:len(steps)-keep]
	for len(old) > 0 && steps[len(old)] > committed { // the ledger may be more than one checkpoint behind
		old = old[:len(old)-1]
	}
	for _, s := range old {
		if err := os.RemoveAll(Path(dir, s)); err != nil {
			return fmt.Errorf("remove old checkpoint: %w", err)
		}
	}
	return nil
}
