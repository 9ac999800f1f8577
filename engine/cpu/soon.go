package cpu

import "math"

// soon is a block of a weight that is read after the one under way. A block is half of the second cache, and a product of 256 rows computes with it no
// longer than eleven times what it takes to come from memory: so it is fetched while the last rows are computed.
type soon struct {
	words []float32 // from its beginning on
	from  int       // row of C with which to begin fetching
}

// Each of half of a slab's panels fetches soonWords words in a row of tiles: a block in soonRows of them.
const (
	soonRows  = 32
	soonWords = 512
)

// inOnePiece is an operand whose blocks are each in one piece of memory.
type inOnePiece interface {
	// piece is that memory from row p and column j of B on.
	piece(p, j int) []float32
}

// after is what follows the block of k that ends before p, in columns j0..j1: the next one, or the next slab's first.
func (g *product) after(p, i1, j0, j1 int) soon {
	if p >= g.to {
		p, j0 = g.from, j1
	}
	if w, ok := g.b.(inOnePiece); ok && j0 < g.n {
		return soon{w.piece(p, j0), i1 - soonRows*g.wide.rows}
	}
	return soon{from: math.MaxInt}
}

// piece is where a panel begins to fetch, the panels of all rows of tiles counted.
func (s *soon) piece(i int) *float32 { return &s.words[min(i*soonWords, len(s.words)-1)] }

func (f *forwardHalf) piece(p, j int) []float32 { return (*halfStrips)(f).from(j, p/2) }

func (b *backwardHalf) piece(p, j int) []float32 { return (*halfStrips)(b).from(p, j/2) }
