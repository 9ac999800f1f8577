package kernels_test

import (
	"testing"

	"lorad/engine/kernel"
)

func TestFill(t *testing.T) {
	each(t, func(g gpu) {
		y := g.room(4 * 777)
		g.run("fill", 3, 64, y, float32(1.5), 777)
		for i, v := range get[float32](g, y, 777) {
			if v != 1.5 {
				t.Fatalf("element %d is %g", i, v)
			}
		}
	})
}

func TestCast(t *testing.T) {
	const rows, cols, ldx, ldy = 7, 33, 40, 48
	each(t, func(g gpu) {
		x, before := g.floats(rows*ldx), g.halves(rows*ldy)
		y := put(g, before)
		g.run("cast_bf16", 2, 32, put(g, x), ldx, y, ldy, rows, cols, float32(0.3))
		for i, got := range get[uint16](g, y, rows*ldy) {
			want := before[i]
			if row, col := i/ldy, i%ldy; col < cols {
				want = kernel.RoundBF16(0.3 * x[row*ldx+col])
			}
			if got != want {
				t.Fatalf("element %d is %#x, want %#x", i, got, want)
			}
		}
	})
}

func TestAdd(t *testing.T) {
	each(t, func(g gpu) {
		for _, n := range []int{0, 1, 7, 8, 1003} {
			a, b := g.halves(n), g.halves(n)
			y := put(g, a)
			g.run("add_bf16", 2, 32, y, put(g, b), n)
			want := make([]uint16, n)
			for i := range want {
				want[i] = kernel.RoundBF16(kernel.WidenBF16(a[i]) + kernel.WidenBF16(b[i]))
			}
			same(t, "sum", get[uint16](g, y, n), want)
		}
	})
}
