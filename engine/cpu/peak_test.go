package cpu

import (
	"testing"
	"time"
)

// A loop that the processor could skip, or an instruction that is encoded wrongly, would be far from the tile's rate. Only ratios that
// no load can produce are held: this is no timed test.
func TestPeakLoopsDoWork(t *testing.T) {
	p := MeasurePeak(1, 80*time.Millisecond)
	t.Logf("f32 %.1f GFLOP/s, bf16 %.1f GFLOP/s, memory %.1f GB/s", p.F32/1e9, p.BF16/1e9, p.Bandwidth/1e9)
	if p.F32 < 1e8 || p.F32 > 1e12 || p.Bandwidth < 1e8 || p.Bandwidth > 1e12 {
		t.Error("no processor is like that")
	}
	if p.BF16 != 0 && (p.BF16 < p.F32/16 || p.BF16 > 16*p.F32) {
		t.Error("bf16 and f32 do not fit together")
	}
}

func TestTileLoopsStandIn(t *testing.T) {
	for _, l := range Available() {
		loops := tileLoops(l)
		if r := loops.f32.rate(1, 10*time.Millisecond); r < 1e7 {
			t.Errorf("%v: %g operations a second", l, r)
		}
		buf := make([]byte, 4*loadBlock)
		loops.load(4, &buf[0])
	}
}
