package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"lorad/engine"
	"lorad/node/step"
	"lorad/node/tally"
	"lorad/proto"
)

// free is how many bytes this process can still take before the kernel ends it: what the machine has left, or less if a
// control group limits it. MaxInt64 if the system does not say.
func free() int64 {
	least := int64(math.MaxInt64)
	if kib, ok := field("/proc/meminfo", "MemAvailable:"); ok {
		least = kib << 10
	}
	const root = "/sys/fs/cgroup"
	unified, memory := ownGroups()
	return min(least,
		leftIn(root, "memory.max", "memory.current", "inactive_file"),
		leftIn(filepath.Join(root, unified), "memory.max", "memory.current", "inactive_file"),
		leftIn(filepath.Join(root, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
		leftIn(filepath.Join(root, "memory", memory), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
}

// leftIn is how many bytes a control group may still take. cache is the name of what goes when memory is asked for.
func leftIn(dir, limitFile, usedFile, cache string) int64 {
	limit, limited := number(filepath.Join(dir, limitFile)) // "max" is no number
	used, known := number(filepath.Join(dir, usedFile))
	if !limited || !known {
		return math.MaxInt64
	}
	clean, _ := field(filepath.Join(dir, "memory.stat"), cache)
	return max(0, limit-used+min(clean, used))
}

// ownGroups are this process's control groups, of version 2 and of version 1's memory controller.
func ownGroups() (unified, memory string) {
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) < 3:
		case f[0] == "0":
			unified = f[2]
		case f[1] == "memory":
			memory = f[2]
		}
	}
	return unified, memory
}

func number(path string) (int64, bool) {
	text, err := os.ReadFile(path)
	n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && bad == nil
}

// field is the number after a name at the beginning of a line.
func field(path, name string) (int64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// unfitError says that this node cannot do the work of a run, whatever it tries. Others may.
type unfitError struct{ cause error }

func (e *unfitError) Error() string { return "this node cannot do the work: " + e.cause.Error() }
func (e *unfitError) Unwrap() error { return e.cause }

// gradient is the trainer's, in as much memory as there is: when there is too little, or would be, the trainer is asked to
// do with less and the micro-batch is computed then, with the same bits.
func (w *worker) gradient(t task) (g tally.Gradient, err error) {
	for {
		err := w.fits(t.batch)
		if err == nil {
			g, err = t.compute(w.trainer, w.grad)
			if err != nil && g.Held != nil && !errors.Is(err, engine.ErrOutOfMemory) {
				return g, &unfitError{err} // this node's GPU has failed
			}
			if !errors.Is(err, engine.ErrOutOfMemory) {
				return g, err
			}
		}
		if !w.leaner() {
			return g, &unfitError{err}
		}
		w.log.Warn("memory is short: more layers are computed again in the backward pass, which is slower and gives the same bits", "cause", err)
	}
}

// leaner has the trainer do with less memory, and notes that for the next process in case this one is ended all the same.
func (w *worker) leaner() bool {
	t, thrifty := w.trainer.(engine.Thrifty)
	if !thrifty || !t.Leaner() {
		return false
	}
	debug.FreeOSMemory()
	w.lean++
	w.attempt.note(w.lean)
	return true
}

// fits says whether there is memory for what the trainer would take for b.
func (w *worker) fits(b engine.Batch) error {
	t, thrifty := w.trainer.(engine.Thrifty)
	if !thrifty {
		return nil
	}
	need, have := t.Growth(b), w.node.free()
	if need <= have {
		return nil
	}
	return fmt.Errorf("a micro-batch of %d tokens takes %d MiB and %d MiB are left: %w; give this node more memory, or lower micro_batch_size or sequence_len",
		len(b.Tokens), need>>20, have>>20, engine.ErrOutOfMemory)
}

// dropOut has the others go on without this node, which gets no ready for the run again. A run that has no others has failed.
func (w *worker) dropOut(ctx context.Context, a step.ReportUnable) {
	if w.node.cfg.Alone {
		w.broken(ctx, errors.New(a.Detail))
		return
	}
	w.log.Error("this node drops out of the run", "cause", a.Detail)
	w.node.mu.Lock()
	w.node.unfit[w.id] = true
	w.node.mu.Unlock()
	if outside(w.heard(), w.node.cfg.ID) {
		return
	}
	w.report(ctx, &proto.Report{Generation: a.Generation, Outcome: proto.Outcome_UNFIT, Suspect: w.node.cfg.ID, Detail: a.Detail})
}
