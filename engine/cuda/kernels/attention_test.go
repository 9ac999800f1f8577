package kernels_test

import (
	"fmt"
	"math"
	"testing"

	"lorad/engine/kernel"
)

func TestRope(t *testing.T) {
	const rows, heads, all, positions = 5, 3, 4, 11
	each(t, func(g gpu) {
		for _, c := range [][2]int{{16, 16}, {64, 64}, {128, 128}, {128, 96}, {40, 16}} {
			d, turned := c[0], c[1]
			ld := all*d + 8
			x, cos, sin := g.halves(rows*ld), g.floats(positions*turned/2), g.floats(positions*turned/2)
			pos := []int32{0, 1, 10, 0, 3}
			for inverse := range 2 {
				want := widen(x)
				for r, p := range pos {
					c, s := wide(cos[int(p)*turned/2:][:turned/2]), wide(sin[int(p)*turned/2:][:turned/2])
					for h := range heads {
						kernel.NewRef[float64]().Rope(1, turned, want[r*ld+h*d:][:turned], turned, c, s, inverse == 1)
					}
				}
				y := put(g, x)
				g.run("rope", 3, 32, y, ld, put(g, pos), put(g, cos), put(g, sin), rows, heads, d, turned, inverse)
				near(t, fmt.Sprintf("%d of d=%d inverse=%d", turned, d, inverse), widen(get[uint16](g, y, rows*ld)), want, bf16Tolerance)
			}
		}
	})
}

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func TestSwiGLU(t *testing.T) {
	const rows, n, ldgu, ldh = 3, 40, 96, 48
	each(t, func(g gpu) {
		ref := kernel.NewRef[float64]()
		gu, dh := g.halves(rows*ldgu), g.halves(rows*ldh)
		gu[0], gu[1] = kernel.RoundBF16(-120), kernel.RoundBF16(120)
		h, dgu := make([]float64, rows*ldh), make([]float64, rows*ldgu)
		x, d := widen(gu), widen(dh)
		for r := range rows {
			gate, up := x[r*ldgu:][:n], x[r*ldgu+n:][:n]
			ref.SwiGLU(h[r*ldh:][:n], gate, up)
			ref.SwiGLUBackward(dgu[r*ldgu:][:n], dgu[r*ldgu+n:][:n], d[r*ldh:][:n], gate, up)
		}
		out := g.room(2 * rows * ldh)
		g.run("swiglu_forward", 2, 32, put(g, gu), out, rows, n, ldgu, ldh)
		inGU, inDH := put(g, gu), put(g, dh)
		g.run("swiglu_backward", 2, 32, inDH, inGU, inGU, inDH, rows, n, ldh, ldgu)
		first, again, back := widen(get[uint16](g, out, rows*ldh)), widen(get[uint16](g, inDH, rows*ldh)), widen(get[uint16](g, inGU, rows*ldgu))
		for r := range rows {
			near(t, "h", first[r*ldh:][:n], h[r*ldh:][:n], bf16Tolerance)
			same(t, "h again", again[r*ldh:][:n], first[r*ldh:][:n])
			near(t, "gradient", back[r*ldgu:][:2*n], dgu[r*ldgu:][:2*n], bf16Tolerance)
		}
	})
}

func TestCrossEntropy(t *testing.T) {
	each(t, func(g gpu) {
		for _, c := range []struct{ vocab, threads int }{{1, 32}, {7, 64}, {1000, 256}, {1001, 64}, {20, 96}} {
			const rows, scale = 4, 0.125
			x := g.floats(rows * c.vocab)
			for i := range x {
				x[i] *= 3
			}
			x[0] = 60 // far above the rest
			labels := []int32{0, -100, int32(c.vocab - 1), int32(c.vocab / 2)}
			wantLoss, want := make([]float64, rows), wide(x)
			for r, l := range labels {
				row := want[r*c.vocab : (r+1)*c.vocab]
				if l < 0 {
					clear(row)
					continue
				}
				kernel.NewRef[float64]().CrossEntropy(1, c.vocab, row, []int32{l}, wantLoss[r:], scale, true)
			}
			in, where, loss, dx, factor := put(g, x), put(g, labels), g.room(4*rows), g.room(2*rows*c.vocab), put(g, []float32{scale})
			what := fmt.Sprintf("vocabulary of %d", c.vocab)
			g.run("cross_entropy", rows, c.threads, in, where, loss, dx, factor, rows, c.vocab)
			near(t, what+": loss", get[float32](g, loss, rows), wantLoss, 1e-6)
			near(t, what+": gradient", widen(get[uint16](g, dx, rows*c.vocab)), want, bf16Tolerance)
			g.run("cross_entropy", rows, c.threads, in, where, loss, 0, factor, rows, c.vocab)
			near(t, what+": loss without gradient", get[float32](g, loss, rows), wantLoss, 1e-6)
		}
	})
}

// A NaN among the logits is seen in the loss.
func TestCrossEntropyKeepsNaN(t *testing.T) {
	g := open(t, 0)
	x := g.floats(100)
	x[77] = float32(math.NaN())
	loss := g.room(4)
	g.run("cross_entropy", 1, 32, put(g, x), put(g, []int32{3}), loss, 0, put(g, []float32{1}), 1, 100)
	if l := get[float32](g, loss, 1)[0]; l == l {
		t.Errorf("loss %g of logits with a NaN", l)
	}
}
