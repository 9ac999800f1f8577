package optim

import (
	"math"
	"slices"
)

// GlobalNorm is the Euclidean norm of g. Squares of float32 are exact in float64; they are added in four interleaved
// sums (element i goes to sum i mod 4), then (0+1)+(2+3): an order that depends on the length alone.
func GlobalNorm(g []float32) float64 {
	var s [4]float64
	n := len(g) &^ 3
	for i := squaresVector(&s, g[:n]); i < n; i += 4 {
		q := g[i : i+4 : i+4]
		s[0] += square(q[0])
		s[1] += square(q[1])
		s[2] += square(q[2])
		s[3] += square(q[3])
	}
	for i, x := range g[n:] {
		s[i] += square(x)
	}
	return math.Sqrt((s[0] + s[1]) + (s[2] + s[3]))
}

func square(x float32) float64 { return float64(float64(x) * float64(x)) }

// Clip scales g down so that its norm is at most max, as torch.nn.utils.clip_grad_norm_ does (the factor is
// max/(norm+1e-6), at most 1), and returns the norm before. A NaN in g makes all of g NaN, as in torch: the caller
// looks at the norm. max <= 0 measures only.
func Clip(g []float32, max float64) (norm float64) {
	norm, pieces := ClipPieces(g, max)
	inTurn(pieces)
	return norm
}

// ClipPieces is Clip, whose scaling is left to do, in pieces that are independent of each other; none if there is nothing to scale.
func ClipPieces(g []float32, max float64) (norm float64, pieces []func()) {
	norm = GlobalNorm(g)
	factor := max / (norm + 1e-6)
	if max <= 0 || factor >= 1 {
		return norm, nil
	}
	for some := range slices.Chunk(g, pieceLen) {
		pieces = append(pieces, func() { scale(some, float32(factor)) })
	}
	return norm, pieces
}

func scale(g []float32, f float32) {
	for i := scaleVector(g, f); i < len(g); i++ {
		g[i] *= f
	}
}
