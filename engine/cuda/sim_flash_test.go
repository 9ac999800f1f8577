package cuda

import (
	"math"

	"lorad/engine/cuda/device"
	"lorad/engine/quant"
)

func (d *sim) dequantise(_ device.Grid, a args) error {
	codes, absmax, scales, table, nested, to, rows, cols, ld := a.ptr(), a.ptr(), a.ptr(), a.ptr(), a.int(), a.ptr(), a.int(), a.int(), a.int()
	n := rows * cols
	blocks := (n + quant.Block - 1) / quant.Block
	q := &quant.NF4{N: n, Block: quant.Block, Codes: d.at(codes, (n+1)/2), Round: quant.BF16}
	if nested == 0 {
		q.Absmax = d.f32(absmax, blocks)
	} else {
		t := d.f32(table, 257)
		q.Nested = &quant.Nested{Codes: d.at(scales, blocks), Block: nested, Absmax: d.f32(absmax, (blocks+nested-1)/nested), Map: quant.Map(t[:256]), Offset: t[256]}
	}
	x := make([]float32, n)
	q.Decode(x, 0)
	d.store(matrix(to, ld), x, cols)
	return nil
}

// flash is what the attention kernels have in common.
type flash struct {
	d                   *sim
	qkv                 []float32
	ld, rows, heads, kv int
	scale               float32
	window              int
	parts               []int32
	size                int // rows of a part
}

func (d *sim) flash(g device.Grid, size int, qkv device.Ptr, ld int, parts device.Ptr, a args) flash {
	f := flash{d: d, ld: ld, rows: a.int(), heads: a.int(), kv: a.int(), scale: a.float(), window: a.int(), size: size}
	f.qkv, f.parts = d.load(matrix(qkv, ld), f.rows, ld), d.i32(parts, 4*g.Blocks[1])
	return f
}

// each calls for every row of every part, and for the keys it sees.
func (f flash) each(do func(head, row, from int)) {
	for head := range f.heads {
		for p := range len(f.parts) / 4 {
			begin, end, first := int(f.parts[4*p]), int(f.parts[4*p+1]), int(f.parts[4*p+2])
			for row := first; row < min(first+f.size, end); row++ {
				from := begin
				if f.window > 0 {
					from = max(from, row-f.window+1)
				}
				do(head, row, from)
			}
		}
	}
}

const simHead = 64

func (f flash) q(row, head int) []float32 { return f.qkv[row*f.ld+head*simHead:][:simHead] }
func (f flash) k(row, head int) []float32 {
	return f.qkv[row*f.ld+(f.heads+head/(f.heads/f.kv))*simHead:][:simHead]
}
func (f flash) v(row, head int) []float32 {
	return f.qkv[row*f.ld+(f.heads+f.kv+head/(f.heads/f.kv))*simHead:][:simHead]
}

func dot(a, b []float32) (s float64) {
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}

func axpy(a float64, x []float32, y []float64) {
	for i := range x {
		y[i] += a * float64(x[i])
	}
}

func (d *sim) put(p device.Ptr, x []float64) {
	for i, v := range x {
		d.b16(p, len(x))[i] = round16(float32(v))
	}
}

func (d *sim) flashForward(g device.Grid, a args) error {
	qkv, ld, parts, o, ldo, lse := a.ptr(), a.int(), a.ptr(), a.ptr(), a.int(), a.ptr()
	f := d.flash(g, 128, qkv, ld, parts, a)
	f.each(func(head, row, from int) {
		var sum float64
		out := make([]float64, simHead)
		for j := from; j <= row; j++ {
			p := math.Exp(float64(f.scale) * dot(f.q(row, head), f.k(j, head)))
			sum += p
			axpy(p, f.v(j, head), out)
		}
		for i := range out {
			out[i] /= sum
		}
		d.put(o+device.Ptr(2*(row*ldo+head*simHead)), out)
		d.f32(lse, f.heads*f.rows)[head*f.rows+row] = float32(math.Log(sum))
	})
	return nil
}

func (d *sim) flashDelta(_ device.Grid, a args) error {
	o, ldo, do, lddo, delta, rows, heads, dim := a.ptr(), a.int(), a.ptr(), a.int(), a.ptr(), a.int(), a.int(), a.int()
	x, y := d.load(matrix(o, ldo), rows, heads*dim), d.load(matrix(do, lddo), rows, heads*dim)
	for r := range rows {
		for h := range heads {
			at := r*heads*dim + h*dim
			d.f32(delta, heads*rows)[h*rows+r] = float32(dot(x[at:at+dim], y[at:at+dim]))
		}
	}
	return nil
}

// flashBackward calls with p and ds of every pair that sees each other.
func (d *sim) flashBackward(g device.Grid, size int, a args, pair func(f flash, do []float32, head, row, j int, p, ds float64)) (out device.Ptr, ld int, rows, heads, kv int) {
	qkv, ldq, parts, grad, lddo, lse, delta, out, ld := a.ptr(), a.int(), a.ptr(), a.ptr(), a.int(), a.ptr(), a.ptr(), a.ptr(), a.int()
	f := d.flash(g, size, qkv, ldq, parts, a)
	do, sums, deltas := d.load(matrix(grad, lddo), f.rows, f.heads*simHead), d.f32(lse, f.heads*f.rows), d.f32(delta, f.heads*f.rows)
	f.each(func(head, row, from int) {
		mine, at := do[row*f.heads*simHead+head*simHead:][:simHead], head*f.rows+row
		for j := from; j <= row; j++ {
			p := math.Exp(float64(f.scale)*dot(f.q(row, head), f.k(j, head)) - float64(sums[at]))
			pair(f, mine, head, row, j, p, p*(dot(mine, f.v(j, head))-float64(deltas[at]))*float64(f.scale))
		}
	})
	return out, ld, f.rows, f.heads, f.kv
}

func (d *sim) flashQ(g device.Grid, a args) error {
	grads := map[[2]int][]float64{}
	out, ld, _, _, _ := d.flashBackward(g, 128, a, func(f flash, do []float32, head, row, j int, p, ds float64) {
		key := [2]int{row, head}
		if grads[key] == nil {
			grads[key] = make([]float64, simHead)
		}
		axpy(ds, f.k(j, head), grads[key])
	})
	for key, x := range grads {
		d.put(out+device.Ptr(2*(key[0]*ld+key[1]*simHead)), x)
	}
	return nil
}

func (d *sim) flashKV(g device.Grid, a args) error {
	dk, dv := map[[2]int][]float64{}, map[[2]int][]float64{}
	out, ld, _, heads, kv := d.flashBackward(g, 64, a, func(f flash, do []float32, head, row, j int, p, ds float64) {
		key := [2]int{j, head / (f.heads / f.kv)}
		if dk[key] == nil {
			dk[key], dv[key] = make([]float64, simHead), make([]float64, simHead)
		}
		axpy(ds, f.q(row, head), dk[key])
		axpy(p, do, dv[key])
	})
	for key := range dk {
		d.put(out+device.Ptr(2*(key[0]*ld+(heads+key[1])*simHead)), dk[key])
		d.put(out+device.Ptr(2*(key[0]*ld+(heads+kv+key[1])*simHead)), dv[key])
	}
	return nil
}
