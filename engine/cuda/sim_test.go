package cuda

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"lorad/engine/cuda/device"
	"lorad/engine/kernel"
)

// sim is a device in plain Go: every kernel as the one line of mathematics that it is, in the roundings that the real ones promise. It proves
// which kernel the trainer calls on what, and runs wherever Go does; that the real kernels compute the same is engine/cuda/standin's to prove.
//
// Memory is NaN until it is written, and an access outside of what was allocated is an error.
type sim struct {
	memory  []byte
	allocs  []span
	free    int64
	record  *[]func() error
	closed  bool
	pinned  int
	kernels map[string]func(g device.Grid, a args) error
}

type span struct{ at, end device.Ptr }

const simBase = 1 << 20

func newSim(free int64) *sim {
	d := &sim{memory: make([]byte, 0, free), free: free}
	d.kernels = map[string]func(device.Grid, args) error{
		"head_norm_forward": d.headNorm, "head_norm_backward": d.headNormBackward,
		"embed_gather": d.embed, "rmsnorm_forward": d.norm, "rmsnorm_backward": d.normBackward, "rope": d.rope, "swiglu_forward": d.swiglu,
		"swiglu_backward": d.swigluBackward, "gather_rows": d.gather, "scatter_rows": d.scatter, "cross_entropy": d.crossEntropy,
		"dropout": d.dropout, "dropout_add": d.dropoutAdd, "nf4_dequantise": d.dequantise, "cast_bf16": d.cast, "copy_matrix": d.copyMatrix, "flash_delta": d.flashDelta,
		"flash_forward_d64": d.flashForward, "flash_backward_kv_d64": d.flashKV, "flash_backward_q_d64": d.flashQ,
		"check_range": d.checkRange, "to_fixed": d.toFixed,
	}
	return d
}

var _ device.Device = (*sim)(nil)

func (d *sim) Info() device.Info    { return device.Info{Name: "simulated", Memory: int64(cap(d.memory))} }
func (d *sim) Free() (int64, error) { return d.free, nil }
func (d *sim) Sync() error          { return nil }
func (d *sim) Close() error         { d.closed = true; return nil }

// library is room that a plan counts and nothing takes.
func (d *sim) Alloc(bytes int64) (device.Ptr, error) {
	if d.record != nil {
		return 0, errors.New("alloc while recording")
	}
	if bytes > d.free {
		return 0, fmt.Errorf("alloc %d: %w", bytes, device.ErrOutOfMemory)
	}
	at := len(d.memory)
	d.memory = append(d.memory, slices.Repeat([]byte{0xff}, int(aligned(bytes))+alignment)...) // grows within its capacity or moves: pointers are offsets
	p := device.Ptr(simBase + at)
	d.allocs = append(d.allocs, span{p, p + device.Ptr(bytes)})
	d.free -= bytes
	return p, nil
}

func (d *sim) Release(p device.Ptr) error {
	i := slices.IndexFunc(d.allocs, func(s span) bool { return s.at == p })
	if i < 0 {
		return fmt.Errorf("release of %d, which is not allocated", p)
	}
	d.free += int64(d.allocs[i].end - p)
	d.allocs = slices.Delete(d.allocs, i, i+1)
	return nil
}

// at is memory from p on.
func (d *sim) at(p device.Ptr, bytes int) []byte {
	for _, s := range d.allocs {
		if p >= s.at && p < s.end {
			if p+device.Ptr(bytes) > s.end {
				panic(fmt.Sprintf("access to %d bytes beyond an allocation", p+device.Ptr(bytes)-s.end))
			}
			return d.memory[p-simBase:][:bytes]
		}
	}
	panic(fmt.Sprintf("access to %d: not allocated", p))
}

func (d *sim) f32(p device.Ptr, n int) []float32 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&d.at(p, 4*n)[0])), n)
}

func (d *sim) i32(p device.Ptr, n int) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(&d.at(p, 4*n)[0])), n)
}

func (d *sim) b16(p device.Ptr, n int) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(&d.at(p, 2*n)[0])), n)
}

func round16(x float32) uint16 {
	b := math.Float32bits(x)
	if x != x {
		return 0x7fff
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

func widen(h uint16) float32 { return kernel.WidenBF16(h) }

// do runs f now, or keeps it if a graph is being recorded. A panic of f is an error.
func (d *sim) do(f func() error) error {
	guarded := func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%v", r)
			}
		}()
		return f()
	}
	if d.record != nil {
		*d.record = append(*d.record, guarded)
		return nil
	}
	return guarded()
}

func (d *sim) Upload(dst device.Ptr, src []byte) error {
	if d.record != nil {
		return errors.New("upload while recording")
	}
	return d.do(func() error { copy(d.at(dst, len(src)), src); return nil })
}

func (d *sim) Download(dst []byte, src device.Ptr) error {
	if d.record != nil {
		return errors.New("download while recording")
	}
	return d.do(func() error { copy(dst, d.at(src, len(dst))); return nil })
}

func (d *sim) Fetch(dst []byte, src device.Ptr, arrived func(n int)) error {
	for at := 0; at < len(dst); {
		n := min(1000, len(dst)-at)
		if err := d.Download(dst[at:at+n], src+device.Ptr(at)); err != nil {
			return err
		}
		at += n
		arrived(at)
	}
	return nil
}

func (d *sim) Pin(host []byte) error   { d.pinned++; return nil }
func (d *sim) Unpin(host []byte) error { d.pinned--; return nil }

func (d *sim) Copy(dst, src device.Ptr, bytes int64) error {
	return d.do(func() error { copy(d.at(dst, int(bytes)), d.at(src, int(bytes))); return nil })
}

func (d *sim) Zero(dst device.Ptr, bytes int64) error {
	return d.do(func() error { clear(d.at(dst, int(bytes))); return nil })
}

type simGraph []func() error

func (d *sim) Record(f func() error) (device.Graph, error) {
	var work []func() error
	d.record = &work
	err := f()
	d.record = nil
	return simGraph(work), err
}

func (g simGraph) Launch() error {
	for _, f := range g {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (g simGraph) Release() error { return nil }

// args are a kernel's, taken one after the other.
type args struct{ left *[]any }

func (a args) next() any {
	v := (*a.left)[0]
	*a.left = (*a.left)[1:]
	return v
}
func (a args) ptr() device.Ptr { return a.next().(device.Ptr) }
func (a args) int() int        { return a.next().(int) }
func (a args) float() float32  { return a.next().(float32) }

func (d *sim) Launch(name string, g device.Grid, list ...any) error {
	k := d.kernels[name]
	if k == nil {
		return fmt.Errorf("no kernel %s", name)
	}
	for i, v := range list { // an untyped 0 is a pointer to nothing
		if v == nil {
			list[i] = device.Ptr(0)
		}
	}
	list = slices.Clone(list)
	return d.do(func() error {
		left := slices.Clone(list)
		if err := k(g, args{&left}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if len(left) > 0 {
			return fmt.Errorf("%s: %d arguments too many", name, len(left))
		}
		return nil
	})
}

// load is a matrix in f32, [rows,cols] as it is stored.
func (d *sim) load(m device.Matrix, rows, cols int) []float32 {
	x := make([]float32, rows*cols)
	for r := range rows {
		at := m.At + device.Ptr(r*m.LD*m.Type.Size())
		if m.Type == device.F32 {
			copy(x[r*cols:], d.f32(at, cols))
			continue
		}
		for i, h := range d.b16(at, cols) {
			x[r*cols+i] = widen(h)
		}
	}
	return x
}

func (d *sim) store(m device.Matrix, x []float32, cols int) {
	for r := 0; r*cols < len(x); r++ {
		at := m.At + device.Ptr(r*m.LD*m.Type.Size())
		if m.Type == device.F32 {
			copy(d.f32(at, cols), x[r*cols:])
			continue
		}
		for i, h := range d.b16(at, cols) {
			_ = h
			d.b16(at, cols)[i] = round16(x[r*cols+i])
		}
	}
}

func (d *sim) Gemm(transA, transB bool, m, n, k int, alpha float32, a, b device.Matrix, beta float32, c device.Matrix) error {
	return d.do(func() error {
		x, y := d.turned(a, transA, m, k), d.turned(b, !transB, n, k)
		out := make([]float32, m*n)
		if beta != 0 {
			out = d.load(c, m, n)
		}
		for i := range m {
			for j := range n {
				var sum float32
				for l, v := range x[i*k : (i+1)*k] {
					sum += v * y[j*k+l]
				}
				out[i*n+j] = alpha*sum + beta*out[i*n+j]
			}
		}
		d.store(c, out, n)
		return nil
	})
}

// turned is a matrix [rows,k] that is stored so, or [k,rows].
func (d *sim) turned(m device.Matrix, trans bool, rows, k int) []float32 {
	if !trans {
		return d.load(m, rows, k)
	}
	x, y := d.load(m, k, rows), make([]float32, rows*k)
	for i := range k {
		for r := range rows {
			y[r*k+i] = x[i*rows+r]
		}
	}
	return y
}
