package cpu

// operand is the matrix B of a product: it fills panels.
type operand interface {
	// fill makes list hold rows p..p+k of B. rows is how many rows of C will use them. Panels come with room of their own; an
	// operand that has the numbers in place points there instead.
	fill(g *product, s *scratch, list []panel, rows, p, k int)
}

// panel is a strip of B as wide as its tile.
type panel struct {
	tile   tile
	j      int // first column
	cols   int // of C, at most tile.cols
	at     []float32
	stride int
}

// strips cuts columns j0..j1 into panels with places in scratch for k rows.
func (g *product) strips(s *scratch, k, j0, j1 int) []panel {
	list, used := s.list[:0], 0
	for j := j0; j < j1; {
		t := g.wide
		if j1-j <= g.narrow.cols {
			t = g.narrow
		}
		list = append(list, panel{tile: t, j: j, cols: min(t.cols, j1-j), at: s.b[used : used+k*t.cols], stride: t.cols})
		used += k * t.cols
		j += t.cols
	}
	return list
}

// turn packs k rows of a panel from a matrix that is stored the other way round: row r of column j is src[j*ld+r]. Blocks are
// turned by assembly, what is left of k and of the columns in Go.
func (q *panel) turn(t transposer, dst []float32, k int, src []float32, ld int) {
	j, k4 := 0, k&^3
	for ; k4 > 0 && j+t.rows <= q.cols; j += t.rows {
		t.run(k4, &src[j*ld], ld, &dst[j], q.stride)
		q.gather(dst, k4, k, j, j+t.rows, src, ld)
	}
	q.gather(dst, 0, k, j, q.cols, src, ld)
}

// gather packs rows r0..r1 of columns j0..j1, one by one.
func (q *panel) gather(dst []float32, r0, r1, j0, j1 int, src []float32, ld int) {
	for r := r0; r < r1; r++ {
		for j := j0; j < j1; j++ {
			dst[r*q.stride+j] = src[j*ld+r]
		}
	}
}

// pad clears the columns of k rows that C does not have.
func (q *panel) pad(dst []float32, k int) {
	for r := 0; r < k && q.cols < q.stride; r++ {
		clear(dst[r*q.stride+q.cols : (r+1)*q.stride])
	}
}

// stored is a matrix as it stands in a slice: B[p,j] = b[p*bk+j*bj].
type stored struct {
	b      []float32
	bk, bj int
}

// fill uses whole strips in place for a few rows, and packs for more.
func (b *stored) fill(g *product, s *scratch, list []panel, rows, p, k int) {
	if b.bj != 1 {
		for i := range list {
			q := &list[i]
			q.turn(g.transpose, q.at, k, b.b[q.j*b.bj+p:], b.bj)
			q.pad(q.at, k)
		}
		return
	}
	whole, w := len(list), g.wide.cols
	if last := list[whole-1]; last.cols < w {
		whole--
	}
	first, j0 := 0, list[0].j // strip to pack
	if rows <= 4*g.wide.rows {
		for ; first < whole; first++ {
			list[first].at, list[first].stride = b.b[p*b.bk+list[first].j:], b.bk
		}
	} else if g.simd != scalar && whole > 0 {
		for r := range k { // whole rows, since neighbours in B share pages
			spread(whole, w, &s.b[r*w], k*w, &b.b[(p+r)*b.bk+j0])
		}
		first = whole
	}
	for i := range list[first:] {
		b.pack(&list[first+i], p, k)
	}
}

// pack copies a strip, with zeros beyond its last column.
func (b *stored) pack(q *panel, p, k int) {
	for r := range k {
		o := (p+r)*b.bk + q.j
		d := q.at[r*q.stride : (r+1)*q.stride]
		clear(d[copy(d, b.b[o:o+q.cols]):])
	}
}
