package cuda

import (
	"encoding/binary"
	"math"
	"slices"
	"unsafe"

	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/engine/lora"
)

func (d *sim) embed(_ device.Grid, a args) error {
	ids, table, x, rows, h := a.ptr(), a.ptr(), a.ptr(), a.int(), a.int()
	for i, id := range d.i32(ids, rows) {
		copy(d.b16(x+device.Ptr(2*i*h), h), d.b16(table+device.Ptr(2*int(id)*h), h))
	}
	return nil
}

func (d *sim) norm(_ device.Grid, a args) error {
	x, delta, w, resid, y, rstd, rows, n, ldy, eps := a.ptr(), a.ptr(), a.ptr(), a.ptr(), a.ptr(), a.ptr(), a.int(), a.int(), a.int(), a.float()
	in, weight := d.load(matrix(x, n), rows, n), d.load(matrix(w, n), 1, n)
	if delta != 0 {
		for i, v := range d.load(matrix(delta, n), rows, n) {
			in[i] = widen(round16(in[i] + v))
		}
	}
	if resid != 0 {
		d.store(matrix(resid, n), in, n)
	}
	out := make([]float32, rows*n)
	for r := range rows {
		var sum float64
		for _, v := range in[r*n : (r+1)*n] {
			sum += float64(v) * float64(v)
		}
		inv := float32(1 / math.Sqrt(sum/float64(n)+float64(eps)))
		d.f32(rstd, rows)[r] = inv
		for i, v := range in[r*n : (r+1)*n] {
			out[r*n+i] = weight[i] * widen(round16(v*inv))
		}
	}
	d.store(matrix(y, ldy), out, n)
	return nil
}

func (d *sim) normBackward(_ device.Grid, a args) error {
	dy, lddy, resid, w, rstd, dres, dx, lddx, rows, n := a.ptr(), a.int(), a.ptr(), a.ptr(), a.ptr(), a.ptr(), a.ptr(), a.int(), a.int(), a.int()
	g, x, weight, out := d.load(matrix(dy, lddy), rows, n), d.load(matrix(resid, n), rows, n), d.load(matrix(w, n), 1, n), make([]float32, rows*n)
	if dres != 0 {
		out = d.load(matrix(dres, lddx), rows, n)
	}
	for r := range rows {
		var sum float64
		inv := d.f32(rstd, rows)[r]
		for i := range n {
			sum += float64(g[r*n+i] * weight[i] * x[r*n+i])
		}
		for i := range n {
			out[r*n+i] += inv*g[r*n+i]*weight[i] - x[r*n+i]*inv*inv*inv/float32(n)*float32(sum)
		}
	}
	d.store(matrix(dx, lddx), out, n)
	return nil
}

func (d *sim) rope(_ device.Grid, a args) error {
	x, ld, pos, cos, sin, rows, heads, width, dim, inverse := a.ptr(), a.int(), a.ptr(), a.ptr(), a.ptr(), a.int(), a.int(), a.int(), a.int(), a.int()
	for r, p := range d.i32(pos, rows) {
		c, s := d.f32(cos+device.Ptr(4*int(p)*dim/2), dim/2), d.f32(sin+device.Ptr(4*int(p)*dim/2), dim/2)
		for h := range heads {
			v := d.b16(x+device.Ptr(2*(r*ld+h*width)), dim)
			for i := range dim / 2 {
				turn := s[i]
				if inverse == 1 {
					turn = -turn
				}
				lo, hi := widen(v[i]), widen(v[i+dim/2])
				v[i], v[i+dim/2] = round16(lo*c[i]-hi*turn), round16(hi*c[i]+lo*turn)
			}
		}
	}
	return nil
}

func silu(x float32) float32 { return float32(float64(x) / (1 + math.Exp(-float64(x)))) }

func (d *sim) swiglu(_ device.Grid, a args) error {
	gu, h, rows, n, ldgu, ldh := a.ptr(), a.ptr(), a.int(), a.int(), a.int(), a.int()
	x, out := d.load(matrix(gu, ldgu), rows, 2*n), make([]float32, rows*n)
	for i := range out {
		gate, up := x[i/n*2*n+i%n], x[i/n*2*n+n+i%n]
		out[i] = silu(gate) * up
	}
	d.store(matrix(h, ldh), out, n)
	return nil
}

func (d *sim) swigluBackward(_ device.Grid, a args) error {
	dh, gu, dgu, h, rows, n, lddh, ldgu := a.ptr(), a.ptr(), a.ptr(), a.ptr(), a.int(), a.int(), a.int(), a.int()
	g, x, out, hidden := d.load(matrix(dh, lddh), rows, n), d.load(matrix(gu, ldgu), rows, 2*n), make([]float32, rows*2*n), make([]float32, rows*n)
	for i := range g {
		at := i/n*2*n + i%n
		gate, up := x[at], x[at+n]
		sig := float32(1 / (1 + math.Exp(-float64(gate))))
		out[at], out[at+n] = g[i]*up*sig*(1+gate*(1-sig)), g[i]*silu(gate)
		hidden[i] = silu(gate) * up
	}
	d.store(matrix(dgu, ldgu), out, 2*n)
	if h != 0 {
		d.store(matrix(h, lddh), hidden, n)
	}
	return nil
}

func (d *sim) gather(_ device.Grid, a args) error {
	x, index, y, rows, n := a.ptr(), a.ptr(), a.ptr(), a.int(), a.int()
	for i, r := range d.i32(index, rows) {
		if r < 0 {
			clear(d.b16(y+device.Ptr(2*i*n), n))
		} else {
			copy(d.b16(y+device.Ptr(2*i*n), n), d.b16(x+device.Ptr(2*int(r)*n), n))
		}
	}
	return nil
}

func (d *sim) scatter(_ device.Grid, a args) error {
	x, index, y, ldy, rows, n := a.ptr(), a.ptr(), a.ptr(), a.int(), a.int(), a.int()
	for i, r := range d.i32(index, rows) {
		if r >= 0 {
			copy(d.b16(y+device.Ptr(2*int(r)*ldy), n), d.b16(x+device.Ptr(2*i*n), n))
		}
	}
	return nil
}

func (d *sim) crossEntropy(_ device.Grid, a args) error {
	logits, labels, loss, dlogits, scale, rows, v := a.ptr(), a.ptr(), a.ptr(), a.ptr(), a.ptr(), a.int(), a.int()
	x, out, s := d.load(wide(logits, v), rows, v), make([]float32, rows*v), d.f32(scale, 1)[0]
	for r, l := range d.i32(labels, rows) {
		d.f32(loss, rows)[r] = 0
		if l == engine.Ignore {
			continue
		}
		row := x[r*v : (r+1)*v]
		top, sum := float64(slices.Max(row)), 0.0
		for _, y := range row {
			sum += math.Exp(float64(y) - top)
		}
		lse := top + math.Log(sum)
		d.f32(loss, rows)[r] = float32(lse - float64(row[l]))
		for i, y := range row {
			out[r*v+i] = s * float32(math.Exp(float64(y)-lse))
		}
		out[r*v+int(l)] -= s
	}
	if dlogits != 0 {
		d.store(matrix(dlogits, v), out, v)
	}
	return nil
}

// mask is x where dropout keeps it, and scaled.
func (d *sim) mask(x []float32, p float32, key device.Ptr, site, element int) []float32 {
	k := d.at(key, 16)
	drop := lora.NewDropout(float64(p), engine.Key{Seed: binary.LittleEndian.Uint64(k), Step: uint32(binary.LittleEndian.Uint64(k[8:]))}, site)
	bits := make([]uint8, (len(x)+7)/8)
	drop.Draw(element/8, bits)
	lora.Apply(bits, drop.Keep, x, x)
	return x
}

func (d *sim) dropout(_ device.Grid, a args) error {
	x, ldx, y, rows, n, p, key, site, first := a.ptr(), a.int(), a.ptr(), a.int(), a.int(), a.float(), a.ptr(), a.int(), a.int()
	d.store(matrix(y, n), d.mask(d.load(matrix(x, ldx), rows, n), p, key, site, first*n), n)
	return nil
}

func (d *sim) dropoutAdd(_ device.Grid, a args) error {
	dx, lddx, x, rows, n, p, key, site, first := a.ptr(), a.int(), a.ptr(), a.int(), a.int(), a.float(), a.ptr(), a.int(), a.int()
	sum := d.load(matrix(dx, lddx), rows, n)
	for i, v := range d.mask(d.load(matrix(x, n), rows, n), p, key, site, first*n) {
		sum[i] += v
	}
	d.store(matrix(dx, lddx), sum, n)
	return nil
}

func (d *sim) copyMatrix(_ device.Grid, a args) error {
	x, ldx, y, ldy, rows, cols := a.ptr(), a.int(), a.ptr(), a.int(), a.int(), a.int()
	for r := range rows {
		copy(d.b16(y+device.Ptr(2*r*ldy), cols), d.b16(x+device.Ptr(2*r*ldx), cols))
	}
	return nil
}

func (d *sim) cast(_ device.Grid, a args) error {
	x, ldx, y, ldy, rows, cols, scale := a.ptr(), a.int(), a.ptr(), a.int(), a.int(), a.int(), a.float()
	v := d.load(wide(x, ldx), rows, cols)
	for i := range v {
		v[i] *= scale
	}
	d.store(matrix(y, ldy), v, cols)
	return nil
}

// inUnits reads a gradient's first three arguments; the last is how many values there are.
func (d *sim) inUnits(a args) []float64 {
	g, own, unit := a.ptr(), a.ptr(), a.int()
	n := (*a.left)[len(*a.left)-1].(int)
	x := make([]float64, n)
	for i, v := range d.f32(g, n) {
		if own != 0 {
			unit = int(int8(d.at(own, n)[i]))
		}
		x[i] = math.Ldexp(float64(v), -unit)
	}
	return x
}

func (d *sim) checkRange(_ device.Grid, a args) error {
	x, micros, bad, _ := d.inUnits(a), a.ptr(), a.ptr(), a.int()
	for _, v := range x {
		if !(math.Abs(v) < 0x1p62/float64(d.i32(micros, 1)[0])) {
			d.i32(bad, 1)[0] = 1
		}
	}
	return nil
}

func (d *sim) toFixed(_ device.Grid, a args) error {
	x, skip, sum, n := d.inUnits(a), a.ptr(), a.ptr(), a.int()
	if skip != 0 && d.i32(skip, 1)[0] != 0 {
		return nil
	}
	to := unsafe.Slice((*int64)(unsafe.Pointer(&d.at(sum, 8*n)[0])), n)
	for i, v := range x {
		to[i] += int64(math.RoundToEven(v))
	}
	return nil
}
