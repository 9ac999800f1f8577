package cpu

import (
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// Peak is what this machine does at most: the yardstick of every share that lorad reports.
type Peak struct {
	F32       float64 // operations a second (a multiply-add is two), in f32
	BF16      float64 // the same for products of bf16 added up in f32; 0: the processor has no instruction for it
	Bandwidth float64 // bytes read from memory a second
}

// loops are a machine's fastest ways to do nothing useful.
type loops struct {
	f32, bf16 loop
	load      func(n int, p *byte) // reads n blocks of loadBlock bytes
}

// loop does n times so many operations.
type loop struct {
	run func(n int)
	ops float64
}

const loadBlock = 256

// tileLoops stands in where there is no assembly of its own: a tile whose operands stay in the first cache is within a percent or two.
func tileLoops(l Level) loops {
	t := kernelsOf(l).wide
	const k = 4096
	run := func(n int) {
		var a [maxRows]float32
		var b [maxCols]float32
		var c [maxRows * maxCols]float32
		for range n {
			t.run(k, &a[0], 1, 0, &b[0], 0, &c[0], t.cols, false, &a[0])
		}
	}
	return loops{f32: loop{run, 2 * k * float64(t.rows*t.cols)}, load: loadWords}
}

func loadWords(n int, p *byte) {
	var sum uint64
	for _, w := range unsafe.Slice((*uint64)(unsafe.Pointer(p)), n*loadBlock/8) {
		sum |= w
	}
	runtime.KeepAlive(sum)
}

// memoryBuffer is large against any cache that a thread could have to itself.
const memoryBuffer = 128 << 20

// MeasurePeak runs loops of nothing but arithmetic, then of nothing but loads, on so many threads at once (0: as many as the program may
// use), for about the given time in all. The best of many short windows counts: the machine may be shared.
func MeasurePeak(threads int, budget time.Duration) Peak {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	l := peakLoops()
	p := Peak{F32: l.f32.rate(threads, budget/4), Bandwidth: bandwidth(l, threads, budget/2)}
	if l.bf16.run != nil {
		p.BF16 = l.bf16.rate(threads, budget/4)
	}
	return p
}

// rate is operations a second of all threads together.
func (l loop) rate(threads int, budget time.Duration) float64 {
	n := 1
	for together(1, func(int) { l.run(n) }) < 5*time.Millisecond { // a window: long against starting a thread, short against a time slice
		n *= 2
	}
	best := 0.0
	for end := time.Now().Add(budget); best == 0 || time.Now().Before(end); {
		t := together(threads, func(int) { l.run(n) })
		best = max(best, l.ops*float64(n)*float64(threads)/t.Seconds())
	}
	return best
}

func bandwidth(l loops, threads int, budget time.Duration) float64 {
	buf := make([]byte, memoryBuffer*threads)
	for i := 0; i < len(buf); i += 4096 { // untouched pages are all the same page of zeros
		buf[i] = 1
	}
	best := 0.0
	for end := time.Now().Add(budget); best == 0 || time.Now().Before(end); {
		t := together(threads, func(i int) { l.load(memoryBuffer/loadBlock, &buf[i*memoryBuffer]) })
		best = max(best, float64(len(buf))/t.Seconds())
	}
	return best
}

// together is how long all calls of f take, side by side.
func together(threads int, f func(i int)) time.Duration {
	var all sync.WaitGroup
	start := time.Now()
	for i := range threads - 1 {
		all.Go(func() { f(i + 1) })
	}
	f(0)
	all.Wait()
	return time.Since(start)
}
