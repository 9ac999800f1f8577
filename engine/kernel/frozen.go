package kernel

// Matrix is where the elements of a frozen weight come from: a slice (Dense), a file, or a compact form such as NF4.
type Matrix[T Float] interface {
	// Shape is [rows, cols].
	Shape() (rows, cols int)
	// Unpack writes rows r0..r1 and columns c0..c1 to dst, row-major with row stride ld. It is a leaf: concurrent calls are safe.
	Unpack(r0, r1, c0, c1 int, dst []T, ld int)
}

// PairMatrix is a Matrix that may also be able to unpack to bf16, which spares the way through f32: two neighbours of a row in a word, the first
// in the lower half, ld words from row to row. False, and nothing is written, if it cannot do these rows and columns.
type PairMatrix[T Float] interface {
	Matrix[T]
	UnpackPairs(r0, r1, c0, c1 int, dst []uint32, ld int) bool
}

// Frozen is a weight W[out,in] that never changes. It is laid out once, so that no step packs it again.
//
// Why one copy for both products and not one for each: at the sizes that matter the weights are most of the memory, and the product whose
// panels have to be turned over loses 1-2 % at a thousand rows.
type Frozen[T Float] interface {
	Shape() (out, in int)
	// Bytes is the memory of the weight.
	Bytes() int
	// Row writes row i of W to dst[in], as the products see it.
	Row(i int, dst []T)
	// Forward computes Y[rows,out] = X[rows,in] W^T, plus the old Y if acc, plus term.U term.V^T with V [out,R]. Uses all threads. As with
	// Gemm, the bits of a row do not depend on other rows.
	Forward(rows int, x []T, ldx int, y []T, ldy int, acc bool, term LowRank[T])
	// Backward computes DX[rows,in] = DY[rows,out] W, plus the old DX if acc, plus term.U term.V with V [R,in]. Uses all threads.
	Backward(rows int, dy []T, ldy int, dx []T, ldx int, acc bool, term LowRank[T])
}

// LowRank is a product of small inner dimension that is added to a larger one while the output is in the cache: the adapter's share.
// U is [rows,R] and V is [out,R] or [R,in], both without gaps. The zero value adds nothing.
type LowRank[T Float] struct {
	R    int
	U, V []T
}

// Dense is a row-major matrix without gaps.
type Dense[T Float] struct {
	Rows, Cols int
	Data       []T
}

// Shape is [Rows, Cols].
func (d Dense[T]) Shape() (rows, cols int) { return d.Rows, d.Cols }

// Unpack copies a block.
func (d Dense[T]) Unpack(r0, r1, c0, c1 int, dst []T, ld int) {
	for r := r0; r < r1; r++ {
		copy(dst[(r-r0)*ld:], d.Data[r*d.Cols+c0:r*d.Cols+c1])
	}
}

// refFrozen keeps the matrix as the reference likes it: row-major, and rounded.
type refFrozen[T Float] struct {
	Ref[T]
	w Dense[T]
	p Precision
}

// Freeze copies m.
func (r Ref[T]) Freeze(m Matrix[T], p Precision) Frozen[T] {
	rows, cols := m.Shape()
	w := Dense[T]{rows, cols, make([]T, rows*cols)}
	m.Unpack(0, rows, 0, cols, w.Data, cols)
	return &refFrozen[T]{w: Dense[T]{rows, cols, round(p, w.Data)}, p: p}
}

// Keep is Freeze: the reference does not save memory.
func (r Ref[T]) Keep(m Matrix[T], p Precision) Frozen[T] { return r.Freeze(m, p) }

func (f *refFrozen[T]) Shape() (out, in int) { return f.w.Rows, f.w.Cols }

func (f *refFrozen[T]) Bytes() int { return len(f.w.Data) * sizeOf[T]() }

func (f *refFrozen[T]) Row(i int, dst []T) { copy(dst[:f.w.Cols], f.w.Data[i*f.w.Cols:]) }

func (f *refFrozen[T]) Forward(rows int, x []T, ldx int, y []T, ldy int, acc bool, t LowRank[T]) {
	f.Gemm1(false, true, rows, f.w.Rows, f.w.Cols, round(f.p, x), ldx, f.w.Data, f.w.Cols, y, ldy, acc)
	if t.R > 0 {
		f.Gemm1(false, true, rows, f.w.Rows, t.R, t.U, t.R, t.V, t.R, y, ldy, true)
	}
}

func (f *refFrozen[T]) Backward(rows int, dy []T, ldy int, dx []T, ldx int, acc bool, t LowRank[T]) {
	f.Gemm1(false, false, rows, f.w.Cols, f.w.Rows, round(f.p, dy), ldy, f.w.Data, f.w.Cols, dx, ldx, acc)
	if t.R > 0 {
		f.Gemm1(false, false, rows, f.w.Cols, t.R, t.U, t.R, t.V, f.w.Cols, dx, ldx, true)
	}
}
