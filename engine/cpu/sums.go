package cpu

// sums is a product that is cut along k: a small C over many tokens, as the gradients of LoRA's factors are. Each thread then reads the rows that it has
// written itself (see team). Blocks of k are the ones that a thread alone would add to C one after the other, and they are added in that order:
// the bits are the same.
type sums struct {
	blocks [maxBlocks]product
	room   []float32 // what all but the first add
}

// Limits of such products.
const (
	maxBlocks = 8
	smallC    = 1 << 16
)

// isSum says whether C is to be cut along k: if A is transposed and there is work for all threads.
func (g *product) isSum() bool {
	threads := g.ops.team.threads
	if threads == 1 || g.ak == 1 || g.m*g.n > smallC || g.m*g.n*g.k < splitWork {
		return false
	}
	blocks := g.blocks()
	return blocks >= threads && blocks <= maxBlocks
}

// blocks is how many k is cut into.
func (g *product) blocks() int { return (g.k + kStep(g.k) - 1) / kStep(g.k) }

func (x *sums) compute(g *product) {
	n, size := g.blocks(), g.m*g.n
	if cap(x.room) < (n-1)*size {
		x.room = make([]float32, (n-1)*size)
	}
	for i := range n {
		x.blocks[i] = *g
		if i > 0 {
			x.blocks[i].c, x.blocks[i].ldc, x.blocks[i].acc = x.room[(i-1)*size:i*size], g.n, false
		}
	}
	g.ops.team.run(n, x)
	for i := range n - 1 {
		for r := range g.m {
			part := x.room[i*size+r*g.n:]
			g.simd.axpy(1, part[:g.n], g.c[r*g.ldc:r*g.ldc+g.n])
		}
	}
	clear(x.blocks[:n]) // nothing is to be kept alive
}

// piece computes block i.
func (x *sums) piece(i int) {
	g := &x.blocks[i]
	step, w := kStep(g.k), g.format.slab()
	s := g.ops.scratch.get()
	for j := 0; j < g.n; j += w {
		g.span(s, 0, g.m, j, min(j+w, g.n), i*step, min(step, g.k-i*step), g.acc)
	}
	g.ops.scratch.put(s)
}
