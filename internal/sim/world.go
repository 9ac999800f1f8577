package sim

import (
	"fmt"
	"runtime/debug"
	"slices"
)

// Times are virtual, in microseconds since the cluster began.
const (
	ms     = int64(1_000)
	second = 1_000 * ms
	epoch  = int64(1_700_000_000_000) // unix ms of virtual time 0
)

// Config says which life to simulate. Everything that is not set follows from the seed.
type Config struct {
	Seed  uint64
	Calm  bool // no faults
	Drain bool // no faults but nodes that hand their work over and take it up again
	Roomy bool // no disk is ever full: for seeds that were kept when there was no such fault
	Bug   Bug  // what the shell does wrong on purpose
	Whole bool // keep the whole trace, not only its end
}

// Outcome is what came of a life.
type Outcome struct {
	Seed      uint64
	Nodes     int
	Committed uint64 // steps in the ledgers
	Made      uint64 // steps made, by all members, repeated ones included
	Events    uint64
	Virtual   int64 // microseconds
	Faults    map[string]int
	Computed  uint64 // gradients of micro-batches, by all members, repeated ones included
	Owed      uint64 // micro-batches in the committed steps
	Yields    uint64 // generations that ended between two steps
	Sums      uint64 // complete sums of gradients
	Lost      uint64 // members that did not get a sum which another member got
	Grants    uint64 // generations
	Aborts    uint64 // reports that gave one up
	Snapshots uint64 // replicas of the coordinator that were restored
	Violation string // "" if every invariant held
	Trace     []string
}

// World is one simulated cluster: the only state that its parts share is time, chance and the wires between them.
type World struct {
	cfg     Config
	now     int64
	seq     uint64
	queue   queue
	rng     rng
	nodes   []*node
	wires   wires
	log     replicated
	rings   map[ringKey]*ring
	users   []*user
	checks  checks
	nemesis nemesis
	out     Outcome
	trace   []line
}

// violation is what a broken invariant panics with: it ends the life at once, however deep.
type violation string

// Live simulates one life from its seed to the end of its runs, or to the first broken invariant.
func Live(cfg Config) (out Outcome) {
	w := newWorld(cfg)
	defer func() {
		if p := recover(); p != nil {
			out = w.outcome()
			out.Trace = w.lines()
			if v, ok := p.(violation); ok {
				out.Violation = string(v)
			} else {
				out.Violation = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
			}
		}
	}()
	w.begin()
	for !w.over() {
		w.next()
	}
	w.checks.final()
	return w.outcome()
}

func newWorld(cfg Config) *World {
	w := &World{cfg: cfg, rng: rng{counter: mix(cfg.Seed + weyl)}, rings: map[ringKey]*ring{}}
	w.out = Outcome{Seed: cfg.Seed, Faults: map[string]int{}}
	n := w.rng.between(1, 5)
	if n == 2 && w.rng.percent(50) {
		n = 3 // two nodes cannot lose one: fewer of them
	}
	for i := range n {
		w.nodes = append(w.nodes, newNode(w, i))
	}
	w.out.Nodes = n
	w.wires = newWires(w)
	w.log.w = w
	w.checks = newChecks(w)
	return w
}

func (w *World) begin() {
	for _, n := range w.nodes {
		late := int64(0)
		if w.rng.percent(15) { // joins later
			late = w.rng.span(0, 30*second)
		}
		w.at(late, func() {
			if !n.up {
				n.start()
			}
		})
	}
	w.log.watch()
	w.wires.watch()
	for i := range w.rng.between(1, 3) {
		w.users = append(w.users, newUser(w, i))
	}
	w.nemesis.begin(w)
}

// over: every run is DONE, and the replicas agree on it.
func (w *World) over() bool {
	for _, u := range w.users {
		if !u.done {
			return false
		}
	}
	return true
}

func (w *World) outcome() Outcome {
	w.out.Virtual = w.now
	w.out.Committed = w.checks.committed()
	return w.out
}

// at has f happen at a time.
func (w *World) at(t int64, f func()) {
	w.seq++
	w.queue.push(event{max(t, w.now), w.seq, f})
}

func (w *World) after(d int64, f func()) { w.at(w.now+d, f) }

func (w *World) next() {
	if len(w.queue) == 0 {
		w.fail("nothing will ever happen again")
	}
	e := w.queue.pop()
	w.now = e.at
	w.out.Events++
	if w.now > w.nemesis.deadline {
		w.fail("no end in sight: %s", w.standstill())
	}
	e.do()
}

// standstill says where everybody is.
func (w *World) standstill() string {
	s := fmt.Sprintf("%d s after the last fault", (w.now-w.nemesis.until)/second)
	for _, n := range w.nodes {
		s += "\n  " + n.describe()
	}
	return s
}

func (w *World) fail(format string, args ...any) {
	panic(violation(fmt.Sprintf(format, args...)))
}

// line is one line of the trace; it is put into words only if somebody wants to read it.
type line struct {
	at     int64
	who    string
	format string
	args   []any
}

const (
	traceKept = 120
	traceMost = 1 << 20
)

func (w *World) note(who, format string, args ...any) {
	w.trace = append(w.trace, line{w.now, who, format, args})
	if !w.cfg.Whole && len(w.trace) >= 2*traceKept || len(w.trace) > traceMost {
		w.trace = slices.Delete(w.trace, 0, traceKept)
	}
}

func (w *World) lines() []string {
	var out []string
	for _, l := range w.trace {
		out = append(out, fmt.Sprintf("%10.3f ms  %-5s %s", float64(l.at)/1000, l.who, fmt.Sprintf(l.format, l.args...)))
	}
	return out
}

// event is something that happens at a time; seq keeps what happens at the same time in order.
type event struct {
	at  int64
	seq uint64
	do  func()
}

// queue is a binary heap, the earliest first.
type queue []event

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

func (q *queue) push(e event) {
	h := append(*q, e)
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	*q = h
}

func (q *queue) pop() event {
	h := *q
	top, last := h[0], len(h)-1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	for i := 0; ; {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < last && h[c].before(h[least]) {
				least = c
			}
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	*q = h
	return top
}

// rng is a splitmix64 stream: the standard library's streams may change with its version, and a seed that once
// failed must fail for ever.
type rng struct{ counter uint64 }

const weyl = 0x9e3779b97f4a7c15

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *rng) next() uint64 {
	r.counter += weyl
	return mix(r.counter)
}

// between is in [lo, hi].
func (r *rng) between(lo, hi int) int { return lo + int(r.next()%uint64(hi-lo+1)) }

// span is a time in [lo, hi].
func (r *rng) span(lo, hi int64) int64 { return lo + int64(r.next()%uint64(hi-lo+1)) }

func (r *rng) percent(p int) bool { return r.between(0, 99) < p }

func pick[T any](r *rng, from []T) T { return from[r.between(0, len(from)-1)] }
