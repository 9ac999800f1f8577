package cpu

import (
	"testing"

	"lorad/engine/kernel/kerneltest"
)

// each runs f for every level of this machine with one, two and three threads.
func each(t *testing.T, f func(t *testing.T, o *Ops)) {
	for _, l := range Available() {
		for threads := 1; threads <= 3; threads++ {
			t.Run(l.String()+"/"+string(rune('0'+threads)), func(t *testing.T) {
				o, err := NewLevel(threads, l)
				if err != nil {
					t.Fatal(err)
				}
				f(t, o)
			})
		}
	}
}

func TestConformance(t *testing.T) {
	each(t, func(t *testing.T, o *Ops) { kerneltest.Conformance(t, o) })
}
