package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// team runs the pieces of a job on the caller's goroutine and up to threads-1 helpers.
//
// A step makes hundreds of jobs of 50 us and more, a few microseconds apart, and waking a sleeping thread takes tens of
// microseconds. So a helper that has run out of work watches for the next job for a moment, and then its goroutine ends; the
// next job starts a new one. Starting a goroutine costs no more than waking one, and so nothing has to be closed, owned
// or collected: a moment after the last job there are no helpers. With one thread there are none at all.
//
// Why not parked workers and a Close: kernel.Ops has no Close, and every test and command would have to pass one along.
type team struct {
	threads int
	mu      sync.Mutex // one job at a time
	job     atomic.Pointer[job]
	seq     atomic.Uint64 // number of jobs posted
	busy    []atomic.Bool // helper i exists
}

// watch is how long an idle helper spins. Several processes may share the cores: it must be short.
const watch = 10 * time.Microsecond

type job struct {
	n    int64
	f    func(i int)
	next atomic.Int64 // piece to claim
	left atomic.Int64 // pieces not finished
	done chan struct{}
}

func newTeam(threads int) *team {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &team{threads: threads, busy: make([]atomic.Bool, threads-1)}
}

// run calls f(0) .. f(n-1) and returns when all have. A second goroutine that comes while a job is under way, or f itself,
// is served on its own goroutine.
func (t *team) run(n int, f func(i int)) {
	if n <= 1 || t.threads == 1 || !t.mu.TryLock() {
		for i := range n {
			f(i)
		}
		return
	}
	defer t.mu.Unlock()
	j := &job{n: int64(n), f: f, done: make(chan struct{})}
	j.left.Store(j.n)
	t.job.Store(j)
	t.seq.Add(1)
	t.call(n - 1)
	j.work()
	j.wait()
	t.job.Store(nil) // f must not be kept alive by an idle team
}

// call starts those helpers that are not watching, n at most.
func (t *team) call(n int) {
	for i := range min(n, len(t.busy)) {
		if b := &t.busy[i]; b.CompareAndSwap(false, true) {
			go t.help(b)
		}
	}
}

// help works on the current job and those that follow closely.
func (t *team) help(busy *atomic.Bool) {
	for {
		seen := t.seq.Load()
		if j := t.job.Load(); j != nil {
			j.work()
		}
		if t.follows(seen) {
			continue
		}
		busy.Store(false)
		// A job posted just now may have found this helper busy: then it is up to whoever sets the flag first.
		if t.seq.Load() == seen || !busy.CompareAndSwap(false, true) {
			return
		}
	}
}

// follows watches for a job after seen.
func (t *team) follows(seen uint64) bool {
	start := time.Now()
	for i := 1; ; i++ {
		if t.seq.Load() != seen {
			return true
		}
		if i%32 == 0 && time.Since(start) > watch {
			return false
		}
	}
}

// work claims pieces until there are none.
func (j *job) work() {
	for i := j.next.Add(1) - 1; i < j.n; i = j.next.Add(1) - 1 {
		j.f(int(i))
		if j.left.Add(-1) == 0 {
			close(j.done)
		}
	}
}

// wait returns when the last piece is finished: soon, as a rule; if its thread has lost its core, sleep.
func (j *job) wait() {
	start := time.Now()
	for i := 1; j.left.Load() > 0; i++ {
		if i%32 == 0 && time.Since(start) > watch {
			<-j.done
			return
		}
	}
}
