package cpu

// panel is a strip of B as wide as its tile, in place or packed.
type panel struct {
	tile   tile
	j      int // first column
	cols   int // of C, at most tile.cols
	at     []float32
	stride int
}

// rowsOfA is where a tile finds its rows of A: in place if it can. A short last tile is filled up with zeros; a transposed
// A that several panels will read is packed, since its lines are far apart.
func (g *product) rowsOfA(s *scratch, i, rows, p, k, panels int) (a *float32, as, ak int) {
	src := g.a[i*g.as+p*g.ak:]
	full := rows == g.wide.rows
	if full && (g.as != 1 || panels < 3) {
		return &src[0], g.as, g.ak
	}
	n := g.wide.rows
	if full && n == 8 && bool(g.simd) {
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

// panels cuts rows p..p+k of B, columns j0..j1, into strips. rows is how many rows of C will use them: for a few, whole strips
// are used in place.
func (g *product) panels(s *scratch, rows, p, k, j0, j1 int) []panel {
	list := g.strips(s, k, j0, j1)
	if g.bj != 1 {
		for _, q := range list {
			g.packTransposed(q, p, k)
		}
		return list
	}
	first := 0 // strip to pack
	if whole := (j1 - j0) / g.wide.cols; rows <= 4*g.wide.rows {
		for ; first < whole; first++ {
			list[first].at, list[first].stride = g.b[p*g.bk+j0+first*g.wide.cols:], g.bk
		}
	} else if g.simd && whole > 0 {
		for w, r := g.wide.cols, 0; r < k; r++ { // whole rows, since neighbours in B share pages
			spread(whole, w, &s.b[r*w], k*w, &g.b[(p+r)*g.bk+j0])
		}
		first = whole
	}
	for _, q := range list[first:] {
		g.packRows(q, p, k)
	}
	return list
}

// strips assigns tiles and places in scratch to columns j0..j1.
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

// packRows copies a strip of B, with zeros beyond its last column.
func (g *product) packRows(q panel, p, k int) {
	for r := range k {
		o := (p+r)*g.bk + q.j
		d := q.at[r*q.stride : (r+1)*q.stride]
		clear(d[copy(d, g.b[o:o+q.cols]):])
	}
}

// packTransposed gathers a strip from rows of the stored matrix: blocks by assembly, what is left of k and of the columns in Go.
func (g *product) packTransposed(q panel, p, k int) {
	j, k4, t := 0, k&^3, g.transpose
	for ; k4 > 0 && j+t.rows <= q.cols; j += t.rows {
		t.run(k4, &g.b[(q.j+j)*g.bj+p], g.bj, &q.at[j], q.stride)
		g.gather(q, p, k4, k, j, j+t.rows)
	}
	g.gather(q, p, 0, k, j, q.cols)
	for r := 0; r < k && q.cols < q.stride; r++ {
		clear(q.at[r*q.stride+q.cols : (r+1)*q.stride])
	}
}

// gather packs steps r0..r1 of columns j0..j1 of a strip, one by one.
func (g *product) gather(q panel, p, r0, r1, j0, j1 int) {
	for r := r0; r < r1; r++ {
		for j := j0; j < j1; j++ {
			q.at[r*q.stride+j] = g.b[(q.j+j)*g.bj+p+r]
		}
	}
}
