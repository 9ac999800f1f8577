// Package checkpoint keeps replicas on disk for the day the power goes.
//
// A checkpoint is a directory checkpoint-<step> under the run's output directory. It holds the adapter as PEFT loads
// it (so a checkpoint can be tried or served as it is), state.bin (package replica's format) and lorad_state.json,
// which says whose it is and the SHA-256 of state.bin. It appears whole or not at all (package durable). Restore takes
// the newest one that proves intact and says which it had to pass over. One that is intact is never replaced: to do so
// takes two renames, and the power may fail between them.
package checkpoint

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	return store{durable.OS{}, dir}.save(run, r, extra)
}

// errKept ends the making of a checkpoint that is there already.
var errKept = errors.New("it is there already")

// store is the checkpoints below a directory.
type store struct {
	disk durable.FS
	dir  string
}

func (s store) path(step uint64, file string) string {
	return filepath.Join(Path(s.dir, step), file)
}

func (s store) save(run string, r *replica.Replica, extra func(tmp string) error) (step uint64, sum []byte, err error) {
	step = r.Done()
	err = durable.DirOn(s.disk, Path(s.dir, step), func(tmp string) error {
		if sum, err = s.writeState(filepath.Join(tmp, stateFile), r, step); err != nil {
			return err
		}
		if s.check(run, step, sum) == nil {
			return errKept
		}
		if err := extra(tmp); err != nil {
			return err
		}
		return s.writeMeta(filepath.Join(tmp, metaFile), Meta{1, run, step, hex.EncodeToString(sum)})
	})
	if errors.Is(err, errKept) { // its name may not be on the disk yet: that is what may have failed the last time
		err = s.disk.Sync(s.dir)
	}
	return step, sum, err
}

func (s store) writeState(path string, r *replica.Replica, step uint64) ([]byte, error) {
	f, err := s.disk.Create(path, 0o644)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if err := r.EncodeAt(io.MultiWriter(f, h), step); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return h.Sum(nil), f.Close()
}

func (s store) writeMeta(path string, m Meta) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFileOn(s.disk, path, append(data, '\n'), 0o644)
}

// Restore puts the newest intact checkpoint of the run into r and returns its step (0: there is none, r is
// untouched) and what was wrong with newer ones. committed is the last step in the ledger: a checkpoint of a later
// step is left alone, because the records of the steps between died with whoever made them. They are done again, with
// the same bits. What a writer that was cut off left behind is removed: nobody else may be writing.
func Restore(dir, run string, committed uint64, r *replica.Replica) (step uint64, passed []error) {
	return store{durable.OS{}, dir}.restore(run, committed, r)
}

func (s store) restore(run string, committed uint64, r *replica.Replica) (step uint64, passed []error) {
	if err := durable.Sweep(s.disk, s.dir, prefix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		passed = append(passed, fmt.Errorf("remains of unfinished checkpoints stay: %w", err))
	}
	for _, step := range slices.Backward(s.list()) {
		if step > committed {
			continue
		}
		err := s.load(run, step, r)
		if err == nil {
			return step, passed
		}
		passed = append(passed, fmt.Errorf("checkpoint of step %d: %w", step, err))
	}
	return 0, passed
}

// Check reads the checkpoint of a step and reports whether it is intact, the run's, and holds the state with the given
// SHA-256 (nil: whatever state it says that it holds).
func Check(dir, run string, step uint64, sum []byte) error {
	return store{durable.OS{}, dir}.check(run, step, sum)
}

func (s store) check(run string, step uint64, sum []byte) error {
	meta, err := s.meta(run, step)
	if err != nil {
		return err
	}
	if sum != nil && meta.StateSHA256 != hex.EncodeToString(sum) {
		return fmt.Errorf("it holds the state %.12s, want %x", meta.StateSHA256, sum[:min(6, len(sum))])
	}
	f, err := s.state(step, meta)
	if err != nil {
		return err
	}
	return f.Close()
}

func (s store) load(run string, step uint64, r *replica.Replica) error {
	meta, err := s.meta(run, step)
	if err != nil {
		return err
	}
	f, err := s.state(step, meta)
	if err != nil {
		return err
	}
	defer f.Close()
	return r.Decode(bufio.NewReaderSize(f, 1<<20))
}

// state opens the state of a checkpoint after it has proved intact.
func (s store) state(step uint64, meta Meta) (io.ReadCloser, error) {
	f, err := s.disk.Open(s.path(step, stateFile))
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if _, err = io.Copy(h, f); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if got := hex.EncodeToString(h.Sum(nil)); err == nil && got != meta.StateSHA256 {
		err = fmt.Errorf("%s is damaged: SHA-256 %.12s, want %.12s", stateFile, got, meta.StateSHA256)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

const maxMeta = 1 << 16 // bytes

// meta reads lorad_state.json and checks that it is about this run and step.
func (s store) meta(run string, step uint64) (Meta, error) {
	var m Meta
	f, err := s.disk.Open(s.path(step, metaFile))
	if err != nil {
		return m, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMeta))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", metaFile, err)
	}
	if m.Version != 1 {
		return m, fmt.Errorf("%s: version %d, this lorad reads version 1", metaFile, m.Version)
	}
	if m.Run != run || m.Step != step {
		return m, fmt.Errorf("it belongs to run %q step %d; use another output_dir or remove it", m.Run, m.Step)
	}
	return m, nil
}

// List returns the steps that have a checkpoint directory, ascending.
func List(dir string) []uint64 { return store{durable.OS{}, dir}.list() }

func (s store) list() []uint64 {
	entries, _ := s.disk.ReadDir(s.dir)
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

// Rotate removes the oldest checkpoints beyond keep, but never the newest one that Restore would take, nor that of step
// best (0: there is none); keep = 0 keeps all.
func Rotate(dir string, keep int, committed, best uint64) error {
	return store{durable.OS{}, dir}.rotate(keep, committed, best)
}

func (s store) rotate(keep int, committed, best uint64) error {
	steps := s.list()
	if keep <= 0 || len(steps) <= keep {
		return nil
	}
	old := steps[:len(steps)-keep]
	for len(old) > 0 && steps[len(old)] > committed { // the ledger may be more than one checkpoint behind
		old = old[:len(old)-1]
	}
	for _, step := range old {
		if step == best {
			continue
		}
		if err := s.disk.RemoveAll(Path(s.dir, step)); err != nil {
			return fmt.Errorf("remove old checkpoint: %w", err)
		}
	}
	return nil
}
