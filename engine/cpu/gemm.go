package cpu

import "fmt"

// Block sizes. They decide the order of additions (kBlock) or the traffic between caches (the rest), and are the same at
// every level, so that all that fuse multiply and add give the same bits.
const (
	kBlock    = 512     // longest run of k in one tile; a slab of B is kBlock x slabCols words = 512 KiB, within L2
	slabCols  = 256     // columns of B packed together
	fewRows   = 3       // up to here packing B costs more than it saves
	splitWork = 1 << 20 // multiply-adds below which other threads are not worth waking
)

// product is one call of Gemm. A[i,p] = a[i*as+p*ak], B[p,j] = b[p*bk+j*bj], C[i,j] = c[i*ldc+j].
type product struct {
	kernels
	simd    simd
	m, n, k int
	a       []float32
	as, ak  int
	b       []float32
	bk, bj  int
	c       []float32
	ldc     int
	acc     bool
}

// scratch is what one thread needs while it computes.
type scratch struct {
	list [slabCols / 4]panel        // first, so that the collector need not look at the rest
	b    [kBlock * slabCols]float32 // packed panels, one after the other
	a    [kBlock * maxRows]float32  // packed rows of A, [k][rows]
	c    [maxRows * maxCols]float32 // a tile that does not fit into C
}

// Largest tile of any level.
const maxRows, maxCols = 8, 32

func (o *Ops) product(transA, transB bool, m, n, k int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) *product {
	p := &product{kernels: o.kernels, simd: o.simd, m: m, n: n, k: k, a: a, as: lda, ak: 1, b: b, bk: ldb, bj: 1, c: c, ldc: ldc, acc: acc}
	ra, ca, rb, cb := m, k, k, n
	if transA {
		p.as, p.ak = 1, lda
		ra, ca = k, m
	}
	if transB {
		p.bk, p.bj = 1, ldb
		rb, cb = n, k
	}
	check("A", ra, ca, lda, len(a))
	check("B", rb, cb, ldb, len(b))
	check("C", m, n, ldc, len(c))
	return p
}

// check panics unless a rows x cols matrix with row stride ld fits into have elements: assembly would not notice.
func check(name string, rows, cols, ld, have int) {
	if rows < 0 || cols < 0 || rows > 0 && cols > 0 && (ld < cols || (rows-1)*ld+cols > have) {
		panic(fmt.Sprintf("cpu gemm: %s is %d x %d with row stride %d, in a slice of %d elements", name, rows, cols, ld, have))
	}
}

// clear is the product for k = 0.
func (g *product) clear() {
	for i := 0; i < g.m && !g.acc; i++ {
		clear(g.c[i*g.ldc : i*g.ldc+g.n])
	}
}

// kStep is the length of the blocks that k is cut into: as equal as possible, a multiple of 4. The order of additions follows from it.
func kStep(k int) int {
	blocks := (k + kBlock - 1) / kBlock
	return ((k+blocks-1)/blocks + 3) &^ 3
}

// block computes rows i0..i1 and columns j0..j1 (at most slabCols) of C.
func (g *product) block(s *scratch, i0, i1, j0, j1 int) {
	step := kStep(g.k)
	for p := 0; p < g.k; p += step {
		k := min(step, g.k-p)
		panels := g.panels(s, i1-i0, p, k, j0, j1)
		acc := g.acc || p > 0
		for i := i0; i < i1; i += g.wide.rows {
			g.row(s, panels, i, min(g.wide.rows, i1-i), p, k, acc)
		}
	}
}

// row computes one row of tiles: rows of A against all panels.
func (g *product) row(s *scratch, panels []panel, i, rows, p, k int, acc bool) {
	a, as, ak := g.rowsOfA(s, i, rows, p, k, len(panels))
	for x := range panels {
		q := &panels[x]
		if rows == q.tile.rows && q.cols == q.tile.cols {
			q.tile.run(k, a, as, ak, &q.at[0], q.stride, &g.c[i*g.ldc+q.j], g.ldc, acc)
			continue
		}
		q.tile.run(k, a, as, ak, &q.at[0], q.stride, &s.c[0], q.tile.cols, false)
		for r := range rows {
			o := (i+r)*g.ldc + q.j
			addRow(g.c[o:o+q.cols], s.c[r*q.tile.cols:], acc)
		}
	}
}

func addRow(c, s []float32, acc bool) {
	s = s[:len(c)]
	if !acc {
		copy(c, s)
		return
	}
	for j, v := range s {
		c[j] += v
	}
}

// Gemm cuts C into a grid for the threads; see grid.
func (o *Ops) Gemm(transA, transB bool, m, n, k int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	if m*n*k < splitWork || o.team.threads == 1 {
		o.Gemm1(transA, transB, m, n, k, a, lda, b, ldb, c, ldc, acc)
		return
	}
	g := o.product(transA, transB, m, n, k, a, lda, b, ldb, c, ldc, acc)
	rows, cols := g.grid(o.team.threads)
	across := (n + cols - 1) / cols
	down := (m + rows - 1) / rows
	o.team.run(across*down, func(x int) {
		i, j := x/across*rows, x%across*cols
		o.compute(g, i, min(i+rows, m), j, min(j+cols, n))
	})
}

// Gemm1 computes on the calling goroutine.
func (o *Ops) Gemm1(transA, transB bool, m, n, k int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	g := o.product(transA, transB, m, n, k, a, lda, b, ldb, c, ldc, acc)
	if m <= 0 || n <= 0 {
		return
	}
	if k <= 0 {
		g.clear()
		return
	}
	o.compute(g, 0, m, 0, n)
}

// compute takes slab after slab of columns. A few rows against the rows of a weight, as in generation, are dot products.
func (o *Ops) compute(g *product, i0, i1, j0, j1 int) {
	if g.m <= fewRows && g.ak == 1 && g.bk == 1 {
		for i := i0; i < i1; i++ {
			g.simd.dots(g.c[i*g.ldc+j0:i*g.ldc+j1], g.a[i*g.as:i*g.as+g.k], g.b[j0*g.bj:], g.bj, g.acc)
		}
		return
	}
	s := o.scratch.Get().(*scratch)
	for j := j0; j < j1; j += slabCols {
		g.block(s, i0, i1, j, min(j+slabCols, j1))
	}
	o.scratch.Put(s)
}

// grid is the size of the pieces of C that threads compute. Pieces of columns share nothing and cost nothing; pieces of rows
// pack the same B again, which 1000 rows pay off and 100 do not. Cut columns if they divide well, else rows.
func (g *product) grid(threads int) (rows, cols int) {
	w, h := g.wide.cols, g.wide.rows
	panels, tiles := (g.n+w-1)/w, (g.m+h-1)/h
	if panels >= 8*threads || panels%threads == 0 || tiles < threads {
		each := (panels + threads - 1) / threads
		if pieces := (each*w + slabCols - 1) / slabCols; pieces > 1 {
			each = (each + pieces - 1) / pieces
		}
		return g.m, each * w
	}
	return (tiles + threads - 1) / threads * h, g.n
}

// zeroed by Go, and aligned to a page because of its size: vectors of B never straddle a cache line.
func newScratch() any { return new(scratch) }
