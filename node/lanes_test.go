package node

import (
	"errors"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"lorad/allreduce"
	"lorad/engine"
	"lorad/node/tally"
)

// counting computes gradients that tell what they were computed of, and watches how it is used.
type counting struct {
	engine.Trainer
	params []float32
	table  *table
	full   int // times that it is out of memory before it does with less
	broken error
}

// table is what all trainers of a test share.
type table struct {
	mu      sync.Mutex
	atOnce  int
	most    int
	changed int
	meet    chan struct{} // not nil: nobody ends before as many as there are engines have begun
}

func (c *counting) Params() []float32 { return c.params }
func (c *counting) Changed()          { c.table.changed++ }
func (c *counting) Growth(engine.Batch) int64 {
	return 0
}
func (c *counting) Leaner() bool { c.full--; return c.full >= 0 }

func (c *counting) Gradient(b engine.Batch, scale float32, key engine.Key, grad []float32) (float64, error) {
	if c.full > 0 {
		return 0, fmt.Errorf("too little: %w", engine.ErrOutOfMemory)
	}
	t := c.table
	t.mu.Lock()
	t.atOnce++
	if t.most = max(t.most, t.atOnce); t.meet != nil && t.most == cap(t.meet) {
		for range cap(t.meet) {
			t.meet <- struct{}{}
		}
		t.most = 0
	}
	t.mu.Unlock()
	if t.meet != nil {
		<-t.meet
	} else {
		time.Sleep(time.Duration(rand.Intn(300)) * time.Microsecond)
	}
	for i := range grad {
		grad[i] = c.params[i] + scale*float32(key.Micro+1)
	}
	t.mu.Lock()
	t.atOnce--
	t.mu.Unlock()
	return float64(key.Micro), c.broken
}

func crew(n int) (*lanes, []*counting, *table) {
	t := &table{}
	var all []engine.Trainer
	var mine []*counting
	for range n {
		c := &counting{params: make([]float32, 3), table: t}
		all, mine = append(all, c), append(mine, c)
	}
	return newLanes(all), mine, t
}

func of(micro int) task { return task{scale: 0.5, key: engine.Key{Micro: uint32(micro)}} }

// wants asks for a gradient and says whether it is that of the parameters and the micro-batch.
func wants(t *testing.T, l *lanes, params float32, micros ...int) {
	t.Helper()
	var grad tally.Gradient
	if err := l.gradient(micros, of, func(g tally.Gradient) error { grad = g; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, g := range grad.Here {
		if g != params+0.5*float32(micros[0]+1) || grad.Loss != float64(micros[0]) {
			t.Fatalf("micro-batch %d: gradient %v with parameters %v", micros[0], grad, params)
		}
	}
}

// Gradients come in the order of the step, of the run's parameters, whichever engine computes them: through steps, and when the work is dealt anew.
func TestLanesGiveWhatOneEngineGives(t *testing.T) {
	for n := 1; n <= 4; n++ {
		l, mine, _ := crew(n)
		for step := range 20 {
			l.settle()
			for i := range mine[0].params {
				mine[0].params[i] = float32(step)
			}
			left := rand.Perm(7)
			for len(left) > 0 {
				wants(t, l, float32(step), left...)
				left = left[1:]
				if rand.Intn(4) == 0 { // somebody has died: others are first
					left = append(left, 7+rand.Intn(3))
					slices.Reverse(left)
					left = slices.Compact(left)
				}
			}
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}
}

// adding is an engine that adds up what it computes, if it is asked to.
type adding struct {
	*counting
	held  []float32
	asked bool
	sum   []int64
}

func (a *adding) Begin(engine.Fixed) { clear(a.sum) }

func (a *adding) Hold(b engine.Batch, scale float32, key engine.Key) (float64, error) {
	a.held, a.asked = make([]float32, len(a.params)), false
	return a.Gradient(b, scale, key, a.held)
}

func (a *adding) Add() (bool, error) {
	if a.asked || a.held == nil {
		return false, errors.New("nothing is held")
	}
	a.asked = true
	for i, g := range a.held {
		a.sum[i] += int64(math.Ldexp(float64(g), -unitLog2))
	}
	return true, nil
}

func (a *adding) Drain(dst []int64, arrived func(int)) error {
	copy(dst, a.sum)
	clear(a.sum)
	arrived(len(dst))
	return nil
}

// What engines compute ahead is in the sum if it is asked for, and only then.
func TestLanesAddWhatIsAskedFor(t *testing.T) {
	for n := 1; n <= 3; n++ {
		var all []engine.Trainer
		for range n {
			all = append(all, &adding{counting: &counting{params: make([]float32, 3), table: &table{}}, sum: make([]int64, 3)})
		}
		l, sum := newLanes(all), tally.New(10, unitLog2, 1, all...)
		for range 30 {
			l.settle()
			sum.Reset(10, nil)
			want, left := float32(0), rand.Perm(10)
			left = left[:5]
			for len(left) > 0 {
				micro := left[0]
				if err := l.gradient(left, of, func(g tally.Gradient) error { return sum.Add(micro, g, 1, 1) }); err != nil {
					t.Fatal(err)
				}
				want += 0.5 * float32(micro+1)
				if left = left[1:]; rand.Intn(3) == 0 { // the rest turns out to be somebody else's
					left = left[len(left)/2:]
				}
			}
			if got := total(t, sum); got != want {
				t.Fatalf("%d engines: %v, want %v", n, got, want)
			}
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}
}

// total is the first value of a sum, all of whose micro-batches were added by now.
func total(t *testing.T, sum *tally.Tally) float32 {
	t.Helper()
	ring, err := allreduce.NewGroup(allreduce.Config{Members: []string{"alone"}}, allreduce.Links{})
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	var out allreduce.Sum
	var some *allreduce.CoverageError
	if _, err := sum.Reduce(t.Context(), ring, allreduce.OpID{}, &out); err != nil && !errors.As(err, &some) {
		t.Fatal(err)
	}
	return out.Grad[0]
}

// A node's only GPU that fails has the node drop out too: others may go on.
func TestOnlyGPUFails(t *testing.T) {
	broken := &adding{counting: &counting{params: make([]float32, 3), table: &table{}, broken: errors.New("illegal address")}}
	w := short(nil, math.MaxInt64)
	w.trainer = broken
	var unfit *unfitError
	if _, err := w.gradient(task{}); !errors.As(err, &unfit) || !errors.Is(err, broken.broken) {
		t.Errorf("%v", err)
	}
}

// With three engines three micro-batches are computed at once: none of them ends before.
func TestLanesWorkAtOnce(t *testing.T) {
	l, _, table := crew(3)
	table.meet = make(chan struct{}, 3)
	for m := 0; m < 6; m += 3 {
		for i := range 3 {
			wants(t, l, 0, []int{m, m + 1, m + 2}[i:]...)
		}
	}
	l.settle()
}

// Parameters travel once a step and engine, and not to the one that has them.
func TestLanesCopyParametersOnce(t *testing.T) {
	l, _, table := crew(2)
	for step := range 3 {
		l.settle()
		for m := range 6 {
			wants(t, l, 0, []int{0, 1, 2, 3, 4, 5}[m:]...)
		}
		if table.changed > step+1 {
			t.Fatalf("step %d: %d copies", step, table.changed)
		}
	}
}

func TestLanesInTrouble(t *testing.T) {
	l, mine, _ := crew(2)
	mine[1].full = 2 // does with less, twice
	wants(t, l, 0, 0, 1)
	wants(t, l, 0, 1)
	mine[0].broken = errors.New("illegal address")
	err := l.gradient([]int{2}, of, nil)
	var unfit *unfitError
	if !errors.As(err, &unfit) || !errors.Is(err, mine[0].broken) {
		t.Errorf("a broken GPU: %v", err)
	}
	mine[0].broken, mine[0].full = nil, 1<<30
	mine[0].table = &table{}
	l.all[0].trainer = struct{ engine.Trainer }{mine[0]} // that cannot do with less
	if err = l.gradient([]int{3}, of, nil); !errors.Is(err, engine.ErrOutOfMemory) {
		t.Errorf("out of memory: %v", err)
	}
}
