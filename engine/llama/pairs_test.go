package llama

import (
	"math"
	"math/rand/v2"
	"testing"

	"lorad/engine/cpu"
	"lorad/engine/kernel"
	"lorad/engine/quant"
)

// longWay is a matrix that can only unpack to f32.
type longWay struct{ kernel.Matrix[float32] }

// Products in bf16 of weights in four bits have the same bits whether the weights come by way of f32 or straight.
func TestPairsOfFourBits(t *testing.T) {
	const out, in, rows = 640, 1056, 9
	r := rand.New(rand.NewPCG(7, 8))
	draw := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		return x
	}
	q := quant.NewNF4(out*in, quant.BF16)
	q.Encode(0, draw(out*in))
	x, dy := draw(rows*in), draw(rows*out)
	ops := cpu.New(2)
	products := func(m kernel.Matrix[float32]) (all []float32) {
		f := ops.Keep(m, kernel.BF16)
		y, dx := make([]float32, rows*out), make([]float32, rows*in)
		f.Forward(rows, x, in, y, out, false, kernel.LowRank[float32]{})
		f.Backward(rows, dy, out, dx, in, false, kernel.LowRank[float32]{})
		return append(y, dx...)
	}
	w := fourBit[float32]{q, out, in}
	want, got := products(longWay{w}), products(w)
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("element %d is %v, by way of f32 %v", i, got[i], want[i])
		}
	}
}
