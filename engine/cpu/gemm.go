package cpu

import "fmt"

// Block sizes. They decide the order of additions (kBlock) or the traffic between caches (the rest), and are the same at
// every level, so that all that fuse multiply and add give the same bits.
const (
	kBlock    = 512     // longest run of k in one tile; a slab of B is kBlock x slabCols words = 512 KiB, within L2
	slabCols  = 256     // columns of B packed together, in words of two bf16 twice as many
	fewRows   = 3       // up to here a tile with all its rows is not worth filling, and a product of vectors not worth packing for
	smallB    = 1 << 18 // elements that each thread's second cache has room for
	splitWork = 1 << 20 // multiply-adds below which other threads are not worth waking
)

// product is C = A B (+ C), and then C += A' B' for a second, small one. A[i,p] = a[i*as+p*ak], C[i,j] = c[i*ldc+j].
type product struct {
	kernels
	ops     *Ops
	job     *job // that lends memory
	m, n, k int
	a       []float32
	as, ak  int
	b       operand
	c       []float32
	ldc     int
	acc     bool
	term    *product // over the same C; its acc is set
	format  format
	rounded []float32 // columns from..to of A in pairs, if they were rounded before: see roundA

	rows, cols int // of the pieces of C that threads compute
	from, to   int // of k: what is being computed
}

// job is the memory of one product: what makes a call cost no allocation.
type job struct {
	main, term   product
	mainB, termB stored
	rounded      []float32
	sums         sums
}

// scratch is what one thread needs while it computes.
type scratch struct {
	list [slabCols / 4]panel        // first, so that the collector need not look at the rest
	soon soon                       // what of B is read after the block of k under way
	b    [kBlock * slabCols]float32 // packed panels, one after the other
	a    [kBlock * maxRows]float32  // packed rows of A, [k][rows]
	c    [maxRows * maxCols]float32 // a tile that does not fit into C
	w    [maxCols * kBlock]float32  // rows of a weight that is unpacked
}

// Largest tile of any level.
const maxRows, maxCols = 8, 32

// over sets up a product of two stored matrices.
func (g *product) over(o *Ops, transA, transB bool, m, n, k int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool, st *stored) {
	*g = product{kernels: o.kernels, ops: o, m: m, n: n, k: k, to: k, a: a, as: lda, ak: 1, b: st, c: c, ldc: ldc, acc: acc}
	*st = stored{b: b, bk: ldb, bj: 1}
	ra, ca, rb, cb := m, k, k, n
	if transA {
		g.as, g.ak = 1, lda
		ra, ca = k, m
	}
	if transB {
		st.bk, st.bj = 1, ldb
		rb, cb = n, k
	}
	check("A", ra, ca, lda, len(a))
	check("B", rb, cb, ldb, len(b))
	check("C", m, n, ldc, len(c))
}

// check panics unless a rows x cols matrix with row stride ld fits into have elements: assembly would not notice.
func check(name string, rows, cols, ld, have int) {
	if rows < 0 || cols < 0 || rows > 0 && cols > 0 && (ld < cols || (rows-1)*ld+cols > have) {
		panic(fmt.Sprintf("cpu gemm: %s is %d x %d with row stride %d, in a slice of %d elements", name, rows, cols, ld, have))
	}
}

// kStep is the length of the blocks that k is cut into: as equal as possible, a multiple of 4. The order of additions follows from it.
func kStep(k int) int {
	blocks := max(1, (k+kBlock-1)/kBlock)
	return ((k+blocks-1)/blocks + 3) &^ 3
}

// block computes rows i0..i1 and columns j0..j1 (at most a slab) of C.
func (g *product) block(s *scratch, i0, i1, j0, j1 int) {
	for p, step := g.from, kStep(g.k); p < g.to; p += step {
		s.soon = g.after(p+step, i1, j0, j1)
		g.span(s, i0, i1, j0, j1, p, min(step, g.k-p), g.acc || p > 0)
	}
	if g.term != nil && g.to == g.k {
		g.term.block(s, i0, i1, j0, j1)
	}
}

// span computes what one block of k, from p on, adds to them.
func (g *product) span(s *scratch, i0, i1, j0, j1, p, k int, acc bool) {
	panels := g.strips(s, g.format.steps(k), j0, j1)
	g.b.fill(g, s, panels, i1-i0, p, k)
	for i := i0; i < i1; {
		if g.isTall() && i1-i >= g.tall.rows {
			g.tallRow(s, panels, i, p, k, acc)
			i += g.tall.rows
			continue
		}
		g.row(s, panels, i, min(g.wide.rows, i1-i), p, k, acc)
		i += g.wide.rows
	}
}

// row computes one row of tiles: rows of A against all panels.
func (g *product) row(s *scratch, panels []panel, i, rows, p, k int, acc bool) {
	if rows <= fewRows && g.wide.one != nil {
		g.few(s, panels, i, rows, p, k, acc)
		return
	}
	a, as, ak := g.rowsOfA(s, i, rows, p, k, len(panels))
	k = g.format.steps(k)
	for x := range panels {
		q, next := &panels[x], g.next(s, i, x, len(panels), p)
		if rows == q.tile.rows && q.cols == q.tile.cols {
			q.tile.run(k, a, as, ak, &q.at[0], q.stride, &g.c[i*g.ldc+q.j], g.ldc, acc, next)
			continue
		}
		q.tile.run(k, a, as, ak, &q.at[0], q.stride, &s.c[0], q.tile.cols, false, next)
		for r := range rows {
			o := (i+r)*g.ldc + q.j
			addRow(g.c[o:o+q.cols], s.c[r*q.tile.cols:], acc)
		}
	}
}

// isTall says whether C has few rows or columns and A is transposed, as with LoRA's gradients over many tokens: then the larger matrix is
// read once, by whole lines, and not twice.
func (g *product) isTall() bool {
	return g.tall.run != nil && g.format == full && g.as == 1 && g.as != g.ak && (g.ak <= 2*g.tall.rows || g.n <= g.tall.cols)
}

// tallRow is row for tall tiles.
func (g *product) tallRow(s *scratch, panels []panel, i, p, k int, acc bool) {
	t, a := &g.tall, &g.a[i+p*g.ak]
	for x := range panels {
		q := &panels[x]
		for j := 0; j < q.cols; j += t.cols {
			o := i*g.ldc + q.j + j
			if n := q.cols - j; n >= t.cols {
				t.run(k, a, 1, g.ak, &q.at[j], q.stride, &g.c[o], g.ldc, acc, nil)
			} else {
				t.run(k, a, 1, g.ak, &q.at[j], q.stride, &s.c[0], t.cols, false, nil)
				for r := range t.rows {
					addRow(g.c[o+r*g.ldc:o+r*g.ldc+n], s.c[r*t.cols:], acc)
				}
			}
		}
	}
}

// few computes some rows one by one. Their bits are those that whole tiles would give them: what becomes of a row does not depend on others.
func (g *product) few(s *scratch, panels []panel, i, rows, p, k int, acc bool) {
	a, as, ak := &g.a[i*g.as+p*g.ak], g.as, g.ak
	if g.format != full {
		a, as, ak = g.roundA(s, i, rows, p, k)
	}
	for r := range rows {
		g.oneRow(s, panels, i+r, at(a, r*as), ak, g.format.steps(k), acc)
	}
}

func (g *product) oneRow(s *scratch, panels []panel, i int, a *float32, ak, k int, acc bool) {
	for x := range panels {
		q := &panels[x]
		c := g.c[i*g.ldc+q.j:]
		if q.cols == q.tile.cols {
			q.tile.one(k, a, ak, &q.at[0], q.stride, &c[0], acc)
			continue
		}
		q.tile.one(k, a, ak, &q.at[0], q.stride, &s.c[0], false)
		addRow(c[:q.cols], s.c[:], acc)
	}
}

// next is what panel x of so many is to have fetched for what comes after row i of tiles. Tiles of pairs fetch a row of A each; half of a slab's panels
// have all of the next row of tiles fetched, and in the last rows the other half what is read of B after them. Tiles of
// float32 fetch eight rows if these are short, and the last panel alone does it: the others' columns would drive them out of the first cache again.
func (g *product) next(s *scratch, i, x, panels, p int) *float32 {
	h := g.wide.rows
	switch {
	case g.format == pairs && x >= h && i >= s.soon.from:
		return s.soon.piece((i - s.soon.from) + x - h)
	case g.format == pairs:
		return g.ahead(i+h+x, p)
	case g.format == full && x == panels-1 && g.k <= kBlock:
		return g.ahead(i+h, p)
	}
	return nil
}

// ahead is where row i of A goes on from p.
func (g *product) ahead(i, p int) *float32 {
	if g.rounded != nil {
		return &g.rounded[min(i*g.roundedStride()+(p-g.from)/2, len(g.rounded)-1)]
	}
	return &g.a[min(i*g.as+p*g.ak, len(g.a)-1)]
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

// rowsOfA is where a tile finds its rows of A: in place if it can. A short last tile is filled up with zeros; a transposed
// A that several panels will read is packed, since its lines are far apart.
func (g *product) rowsOfA(s *scratch, i, rows, p, k, panels int) (a *float32, as, ak int) {
	if g.format != full {
		return g.roundA(s, i, rows, p, k)
	}
	src := g.a[i*g.as+p*g.ak:]
	full := rows == g.wide.rows
	if full && (g.as != 1 || panels < 3) {
		return &src[0], g.as, g.ak
	}
	n := g.wide.rows
	if full && n == 8 && g.simd != scalar {
		copy8(k, &s.a[0], &src[0], g.ak)
		return &s.a[0], 1, n
	}
	for q := range k {
		d := s.a[q*n : q*n+n]
		for r := range rows {
			d[r] = src[r*g.as+q*g.ak]
		}
		clear(d[rows:])
	}
	return &s.a[0], 1, n
}

// Gemm cuts C into a grid for the threads; see grid.
func (o *Ops) Gemm(transA, transB bool, m, n, k int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	j := o.jobs.get()
	j.main.over(o, transA, transB, m, n, k, a, lda, b, ldb, c, ldc, acc, &j.mainB)
	if j.main.isSum() {
		j.sums.compute(&j.main)
	} else {
		j.main.compute()
	}
	o.jobs.put(j)
}

// Gemm1 computes on the calling goroutine. A few rows against rows of B, as the scores of a token, are dot products.
func (o *Ops) Gemm1(transA, transB bool, m, n, k int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	j := o.jobs.get()
	j.main.over(o, transA, transB, m, n, k, a, lda, b, ldb, c, ldc, acc, &j.mainB)
	if m <= fewRows && !transA && transB && k > 0 {
		j.main.dots(&j.mainB)
	} else {
		j.main.alone()
	}
	o.jobs.put(j)
}

func (g *product) dots(b *stored) {
	for i := range g.m {
		g.simd.dots(g.c[i*g.ldc:i*g.ldc+g.n], g.a[i*g.as:i*g.as+g.k], b.b, b.bj, g.acc)
	}
}

// compute shares the pieces of C among the threads.
func (g *product) compute() {
	if g.m*g.n*g.k < splitWork {
		g.alone()
		return
	}
	g.rows, g.cols = g.m, g.n
	if g.ops.team.threads > 1 {
		g.rows, g.cols = g.grid(g.ops.team.threads)
	}
	down, across := (g.m+g.rows-1)/g.rows, (g.n+g.cols-1)/g.cols
	if slab := g.format.slab(); g.format == pairs && g.m >= g.wide.rows && across*((g.cols+slab-1)/slab) > 2 {
		g.computeRounded(across * down)
		return
	}
	g.ops.team.run(across*down, g)
}

// alone computes C on the calling goroutine.
func (g *product) alone() {
	if g.m > 0 && g.n > 0 {
		g.rows, g.cols = g.m, g.n
		g.piece(0)
	}
}

// piece computes one piece of C, slab after slab of columns.
func (g *product) piece(x int) {
	across := (g.n + g.cols - 1) / g.cols
	i0, j0 := x/across*g.rows, x%across*g.cols
	i1, j1 := min(i0+g.rows, g.m), min(j0+g.cols, g.n)
	if g.k == 0 && !g.acc {
		for i := i0; i < i1; i++ {
			clear(g.c[i*g.ldc+j0 : i*g.ldc+j1])
		}
	}
	s := g.ops.scratch.get()
	for j, w := j0, g.format.slab(); j < j1; j += w {
		g.block(s, i0, i1, j, min(j+w, j1))
	}
	g.ops.scratch.put(s)
}

// grid is the size of the pieces of C that threads compute. Pieces of columns share nothing and cost nothing; pieces of rows
// pack the same B again, which 1000 rows pay off and 100 do not. Cut columns if they divide well, else rows; but if B is small beside A,
// always rows: each thread then finds them in its own cache (see team).
func (g *product) grid(threads int) (rows, cols int) {
	w, h := g.wide.cols, g.wide.rows
	panels, tiles := (g.n+w-1)/w, (g.m+h-1)/h
	if g.ak == 1 && tiles >= 8*threads && g.n*g.k <= smallB {
		return (tiles + threads - 1) / threads * h, g.n
	}
	if panels >= 8*threads || panels%threads == 0 || tiles < threads {
		each := (panels + threads - 1) / threads
		if slab := g.format.slab(); each*w > slab {
			pieces := (each*w + slab - 1) / slab
			each = (each + pieces - 1) / pieces
		}
		return g.m, each * w
	}
	return (tiles + threads - 1) / threads * h, g.n
}
