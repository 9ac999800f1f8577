package kernels_test

import (
	"slices"
	"testing"
)

func TestCopiesOfRows(t *testing.T) {
	const rows, hidden, wider, from = 5, 24, 40, 9
	index := []int32{8, -1, 0, 3, -1}
	each(t, func(g gpu) {
		x := g.halves(from * hidden)
		row := func(i int32) []uint16 { return x[int(i)*hidden : (int(i)+1)*hidden] }
		ids := []int32{8, 0, 0, 3, 7}
		var embedded, gathered []uint16
		scattered := g.halves(from * wider)
		before := slices.Clone(scattered)
		for i := range rows {
			embedded = append(embedded, row(ids[i])...)
			if index[i] < 0 {
				gathered = append(gathered, make([]uint16, hidden)...)
				continue
			}
			gathered = append(gathered, row(index[i])...)
			copy(scattered[int(index[i])*wider:], row(int32(i)))
		}
		in, y := put(g, x), g.room(2*rows*hidden)
		g.run("embed_gather", rows, 32, put(g, ids), in, y, rows, hidden)
		same(t, "embedding", get[uint16](g, y, rows*hidden), embedded)
		g.run("gather_rows", rows+1, 32, in, put(g, index), y, rows, hidden)
		same(t, "gathered", get[uint16](g, y, rows*hidden), gathered)
		back := put(g, before)
		g.run("scatter_rows", rows+1, 32, in, put(g, index), back, wider, rows, hidden)
		same(t, "scattered", get[uint16](g, back, from*wider), scattered)
		for r := range rows {
			copy(scattered[r*wider+8:], row(int32(r))[:16])
		}
		g.run("copy_matrix", 1, 32, in, hidden, back+2*8, wider, rows, 16)
		same(t, "copied", get[uint16](g, back, from*wider), scattered)
	})
}
