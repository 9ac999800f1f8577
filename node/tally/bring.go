package tally

import (
	"errors"
	"sync"
	"sync/atomic"
)

// partLen is how many values of a sum are one part: 8 MB, a third of a millisecond on the slowest bus of any card that is meant.
const partLen = 1 << 20

// flow is a sum on its way: how far it has come.
type flow struct {
	to     []int64
	direct bool // to is the accumulator

	mu   sync.Mutex
	n    int
	over bool
	err  error
	more *sync.Cond
}

func newFlow(to []int64, direct bool) *flow {
	f := &flow{to: to, direct: direct}
	f.more = sync.NewCond(&f.mu)
	return f
}

func (f *flow) reach(n int) { f.set(func() { f.n = n }) }

func (f *flow) end(err error) { f.set(func() { f.over, f.err = true, err }) }

func (f *flow) set(what func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	what()
	f.more.Broadcast()
}

// await says whether to[:n] is there, now or ever.
func (f *flow) await(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.n < n && !f.over {
		f.more.Wait()
	}
	return f.n >= n
}

// bring has the engines' sums arrive in the accumulator. The function that it returns waits until nothing is on its way any more; lost hears of an error at once.
func (t *Tally) bring(lost func(error)) (brought func() error) {
	direct := t.Accum.Blank()
	var flows []*flow
	var from []*source
	for i := range t.engines {
		if e := &t.engines[i]; e.some {
			from, flows = append(from, e), append(flows, newFlow(nil, direct && len(flows) == 0))
		}
	}
	if len(flows) == 0 {
		return func() error { return nil }
	}
	grad, arrived := t.Accum.Arrive(partLen)
	var all sync.WaitGroup
	for i, f := range flows {
		f.to = from[i].place(grad, f.direct)
		all.Go(func() {
			err := from[i].Drain(f.to, f.reach)
			from[i].some = false
			if f.end(err); err != nil {
				lost(err)
			}
		})
	}
	addUp(&all, t.threads, grad, flows, arrived)
	return func() (err error) {
		all.Wait()
		for _, f := range flows {
			err = errors.Join(err, f.err)
		}
		return err
	}
}

// place is where a sum goes.
func (s *source) place(grad []int64, direct bool) []int64 {
	if direct {
		return grad
	}
	if s.room == nil {
		s.room = make([]int64, len(grad))
	}
	return s.room
}

// addUp finishes the parts of grad, each when it has come from everywhere.
func addUp(all *sync.WaitGroup, threads int, grad []int64, flows []*flow, arrived func(part int)) {
	parts := (len(grad) + partLen - 1) / partLen
	if len(flows) == 1 && flows[0].direct {
		threads = 1 // there is nothing to add
	}
	var next atomic.Int64
	for range min(threads, parts) {
		all.Go(func() {
			for p := int(next.Add(1)) - 1; p < parts; p = int(next.Add(1)) - 1 {
				if !addPart(grad, flows, p*partLen, min((p+1)*partLen, len(grad))) {
					return
				}
				arrived(p)
			}
		})
	}
}

func addPart(grad []int64, flows []*flow, lo, hi int) bool {
	for _, f := range flows {
		if !f.await(hi) {
			return false
		}
		if !f.direct {
			to := grad[lo:hi]
			for i, x := range f.to[lo:hi] {
				to[i] += x
			}
		}
	}
	return true
}
