package cpu

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"lorad/engine/kernel"
)

// cpuTime is what this process has used: on a shared machine, the measure of single-threaded work that others disturb least.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFrozen multiplies with frozen weights on one thread, and reports the share of the register-loop peak measured in the same run, both
// by CPU time.
func BenchmarkFrozen(b *testing.B) {
	for _, p := range []kernel.Precision{kernel.F32, kernel.BF16} {
		b.Run(p.String(), func(b *testing.B) { benchFrozen(b, p) })
	}
}

func benchFrozen(b *testing.B, p kernel.Precision) {
	top := peak(kernelsOf(best()).wide)
	if t := kernelsOf(best()).pairs.tile; p == kernel.BF16 && t.run != nil {
		top = 2 * peak(t)
	}
	for _, s := range [][3]int{{1024, 2048, 2048}, {1024, 256, 2048}, {1024, 5632, 2048}, {1024, 2048, 5632}, {256, 2048, 2048}, {64, 2048, 2048}, {1000, 384, 128}, {32, 32000, 2048}} {
		rows, out, in := s[0], s[1], s[2]
		o, r := open(b, 1, best()), rand.New(rand.NewPCG(1, 1))
		f := o.Freeze(kernel.Dense[float32]{Rows: out, Cols: in, Data: random(r, out*in)}, p)
		x, y := random(r, rows*in), random(r, rows*out) // pages that were never written share one, which is slow to read
		for _, back := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dx%dx%d/back=%v", rows, out, in, back), func(b *testing.B) {
				share := 0.0
				for b.Loop() {
					start := cpuTime()
					if back {
						f.Backward(rows, y, out, x, in, false, kernel.LowRank[float32]{})
					} else {
						f.Forward(rows, x, in, y, out, false, kernel.LowRank[float32]{})
					}
					flops := 2 * float64(rows*out*in) / (cpuTime() - start).Seconds() / 1e9
					share = max(share, 100*flops/top)
				}
				b.ReportMetric(share, "%peak")
			})
		}
	}
}
