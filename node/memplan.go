package node

import (
	"errors"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"sync"

	"lorad/engine"
)

// memoryLimit tells the collector how much memory the runs of this process were planned to take.
type memoryLimit struct {
	mu    sync.Mutex
	total int64
}

// add changes the sum of the plans' limits.
func (l *memoryLimit) add(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total += bytes; l.total > 0 {
		debug.SetMemoryLimit(l.total)
	} else {
		debug.SetMemoryLimit(math.MaxInt64)
	}
}

// SpareMemory is what this machine could give to a run now, in bytes; 0 if the system does not say.
func SpareMemory() int64 { return spare(free()) }

func spare(free int64) int64 {
	if free == math.MaxInt64 {
		return 0
	}
	return free / 10 * 9
}

// giveBack lets go of what planned took: the run's share of the memory, and the GPUs.
func (w *worker) giveBack() {
	w.node.memory.add(-w.limit)
	err := w.lanes.close()
	if c, ok := w.trainer.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		w.log.Warn("a GPU was not given back in order", "err", err)
	}
	w.limit, w.lanes, w.trainer, w.lean = 0, nil, nil, 0
}

// planned makes the trainer in as much memory as there is, and holds the collector to the plan.
func (w *worker) planned() (engine.Trainer, error) {
	if t, err := w.onGPU(); t != nil || err != nil {
		return t, err
	}
	plan, err := w.recipe.Memory(w.node.threads(), spare(w.node.free()))
	if err != nil {
		return nil, err
	}
	w.log.Info("memory planned", "bytes", plan.Peak, "layers", plan.Layers, "recomputed", plan.Recomputed)
	w.limit = plan.Limit()
	w.node.memory.add(w.limit)
	return w.recipe.Planned(w.node.cfg.Threads, plan)
}

// threads is how many the engine uses.
func (n *Node) threads() int {
	if n.cfg.Threads > 0 {
		return n.cfg.Threads
	}
	return runtime.GOMAXPROCS(0)
}
