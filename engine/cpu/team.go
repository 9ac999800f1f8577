package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// team runs the pieces of a task on the caller's goroutine and up to threads-1 helpers.
//
// A step makes hundreds of tasks of 50 us and more, a few microseconds apart, and waking a sleeping thread takes tens of
// microseconds. So a helper that has run out of work watches for the next task for a moment, and then its goroutine ends; the
// next task starts a new one. Starting a goroutine costs no more than waking one, and so nothing has to be closed, owned
// or collected: a moment after the last task there are no helpers. With one thread there are none at all.
//
// The caller takes pieces from the front and helpers take them from the back. Pieces are rows, as a rule, and so each of two threads has the same
// half of them in task after task: what one wrote it finds in its own cache. Cores that share no cache, as the two of a virtual machine may, would
// otherwise wait for each other's lines most of the time.
//
// What is unclaimed is one word with the task's number, changed by compare-and-swap: a helper that comes late cannot take a piece of a task that it
// has not seen, and one set of counters serves all tasks without allocating.
//
// Why not parked workers and a Close: kernel.Ops has no Close, and every test and command would have to pass one along.
type team struct {
	threads int
	mu      sync.Mutex // one task at a time
	task    task       // written before claims, read after a piece is claimed
	first   int        // its piece that claims counts as 0
	claims  atomic.Uint64
	left    atomic.Int64  // pieces not finished
	done    chan struct{} // a hint that left became 0
	busy    []atomic.Bool // helper i exists
}

// claims is the task's number, the first unclaimed piece, and the one after the last.
const (
	pieceBits = 20
	maxPieces = 1<<pieceBits - 1
)

func unclaimed(w uint64) (front, back int) {
	return int(w >> pieceBits & maxPieces), int(w & maxPieces)
}

// task is a number of pieces that may run in any order and at the same time.
type task interface{ piece(i int) }

// watch is how long an idle helper spins, and a caller whose helper is not done. On an idle virtual machine a core that has nothing to do is given
// back, and getting it again takes 50 to 100 us: a step must not give up a core for the short work between its tasks. But several processes may
// share the cores, and so it must not be long either.
const watch = 200 * time.Microsecond

func newTeam(threads int) *team {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &team{threads: threads, busy: make([]atomic.Bool, threads-1), done: make(chan struct{}, 1)}
}

// run has pieces 0 .. n-1 done and returns when all are. A second goroutine that comes while a task is under way, or a piece
// itself, is served on its own goroutine.
func (t *team) run(n int, x task) {
	if n <= 1 || t.threads == 1 || !t.mu.TryLock() {
		for i := range n {
			x.piece(i)
		}
		return
	}
	defer t.mu.Unlock()
	t.task = x
	for t.first = 0; t.first < n; t.first += maxPieces {
		t.share(min(maxPieces, n-t.first))
	}
	t.task = nil // it must not be kept alive by an idle team
}

// share has so many pieces done.
func (t *team) share(n int) {
	t.left.Store(int64(n))
	number := t.claims.Load()>>(2*pieceBits) + 1
	t.claims.Store(number<<(2*pieceBits) | uint64(n))
	t.call(n - 1)
	t.work(false)
	t.wait()
}

// call starts those helpers that are not watching, n at most.
func (t *team) call(n int) {
	for i := range min(n, len(t.busy)) {
		if b := &t.busy[i]; b.CompareAndSwap(false, true) {
			go t.help(b)
		}
	}
}

// help works on the current task and those that follow closely.
func (t *team) help(busy *atomic.Bool) {
	for {
		t.work(true)
		if t.follows() {
			continue
		}
		busy.Store(false)
		// A task posted just now may have found this helper busy: then it is up to whoever sets the flag first.
		if !t.waiting() || !busy.CompareAndSwap(false, true) {
			return
		}
	}
}

// waiting says whether there are pieces to claim.
func (t *team) waiting() bool {
	front, back := unclaimed(t.claims.Load())
	return front < back
}

// follows watches for pieces.
func (t *team) follows() bool {
	start := time.Now()
	for i := 1; ; i++ {
		if t.waiting() {
			return true
		}
		if i%32 == 0 && time.Since(start) > watch {
			return false
		}
	}
}

// claim takes the last piece or the first.
func (t *team) claim(last bool) (i int, ok bool) {
	for {
		w := t.claims.Load()
		front, back := unclaimed(w)
		switch {
		case front >= back:
			return 0, false
		case last && t.claims.CompareAndSwap(w, w-1):
			return back - 1, true
		case !last && t.claims.CompareAndSwap(w, w+1<<pieceBits):
			return front, true
		}
	}
}

// work claims pieces until there are none.
func (t *team) work(last bool) {
	for {
		i, ok := t.claim(last)
		if !ok {
			return
		}
		t.task.piece(t.first + i)
		if t.left.Add(-1) == 0 {
			select {
			case t.done <- struct{}{}:
			default: // an older hint is there, and as good
			}
		}
	}
}

// wait returns when the last piece is finished: soon, as a rule; if its thread has lost its core, sleep.
func (t *team) wait() {
	start := time.Now()
	for i := 1; t.left.Load() > 0; i++ {
		if i%32 == 0 && time.Since(start) > watch {
			<-t.done
		}
	}
}
