package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"lorad/engine"
	"lorad/engine/cuda/device"
)

var _ engine.Adder = (*Trainer)(nil)

// sum is what is known of the step's sum, resident.sum, and of the gradient, resident.grad. A gradient that is added is only noted: the next pass begins by
// rounding it, before its own takes the place. So a micro-batch is one launch still.
type sum struct {
	engine.Fixed
	empty bool // resident.sum is of any content and counts as zeros
	stale bool // resident.units are not Fixed's
	due   bool // resident.grad was added and is not in resident.sum yet

	held  bool // a gradient can be added: that in resident.grad, or
	zeros bool // one of zeros
	fits  bool // it is in range

	pinned []int64 // where the last sum went
}

// rounding is what of Fixed is in a recorded pass. The rest is in device memory.
type rounding struct {
	unit int
	own  bool // units
}

func (s *sum) rounding() rounding { return rounding{s.UnitLog2, s.Units != nil} }

// pack writes what a pass has to know: whether it has nothing to round, and the range of what it computes.
func (s *sum) pack(block []byte) {
	var skip uint32
	if !s.due {
		skip = 1
	}
	binary.LittleEndian.PutUint32(block[skipAt:], skip)
	binary.LittleEndian.PutUint32(block[microsAt:], uint32(max(s.Micros, 1)))
}

// Begin empties the sum and says how gradients are rounded from now on.
func (t *Trainer) Begin(f engine.Fixed) {
	t.sum = sum{Fixed: f, empty: true, stale: f.Units != nil, pinned: t.sum.pinned}
}

// Hold is Gradient, but the gradient stays on the device.
func (t *Trainer) Hold(b engine.Batch, scale float32, key engine.Key) (float64, error) {
	if t.sum.Micros <= 0 {
		return 0, errors.New("cuda: hold a gradient: no sum has begun")
	}
	loss, labelled, err := t.run(b, scale, key, len(t.params) > 0)
	if err != nil {
		return 0, err
	}
	s := &t.sum
	if s.held, s.zeros = true, labelled == 0 || len(t.params) == 0; s.zeros {
		s.fits = true
	}
	return loss, nil
}

// Add notes that the gradient that is held belongs to the sum. The range of its values is known already.
func (t *Trainer) Add() (fits bool, err error) {
	s := &t.sum
	if !s.held {
		return false, errors.New("cuda: add: no gradient is held")
	}
	s.held = false
	if s.fits && !s.zeros {
		s.due = true
	}
	return s.fits, nil
}

// Drain brings the sum to the host and empties it. Parts are on their way while others are worked on; there is no stream for copies of their own, as
// nothing is computed meanwhile: the next pass needs what becomes of this sum.
func (t *Trainer) Drain(dst []int64, arrived func(n int)) error {
	if len(dst) != len(t.params) {
		return fmt.Errorf("cuda: sum: %d elements, but the model trains %d", len(dst), len(t.params))
	}
	t.round()
	if err := t.ops.take(); err != nil {
		return err
	}
	if t.sum.empty {
		clear(dst)
		arrived(len(dst))
		return nil
	}
	t.sum.empty = true
	t.pin(dst)
	return t.dev.Fetch(raw(dst), t.resident.sum, func(n int) { arrived(n / 8) })
}

// pin keeps the one place where sums go pinned. If the system does not allow it, copies take the longer way.
func (t *Trainer) pin(dst []int64) {
	if len(t.sum.pinned) > 0 && &t.sum.pinned[0] == &dst[0] {
		return
	}
	t.dev.Unpin(raw(t.sum.pinned))
	t.dev.Pin(raw(dst))
	t.sum.pinned = dst
}

// round adds what is due by a launch of its own.
func (t *Trainer) round() {
	if t.sum.due {
		t.readySum()
		t.ops.toFixed(&t.resident, t.sum.rounding(), 0, len(t.params))
		t.sum.due = false
	}
}

// readySum makes the memory fit for passes.
func (t *Trainer) readySum() {
	s := &t.sum
	if s.stale {
		t.ops.upload(t.resident.units, raw(s.Units))
		s.stale = false
	}
	if s.due && s.empty {
		t.ops.zero(t.resident.sum, 8*int64(len(t.params)))
		s.empty = false
	}
}

// toFixed adds the gradient to the sum, unless skip is somewhere and says not to.
func (o *ops) toFixed(r *resident, f rounding, skip device.Ptr, n int) {
	o.launch("to_fixed", flat(n), r.grad, r.unitsIf(f), f.unit, skip, r.sum, n)
}

// checkRange sets the flag if a value of the gradient has no place in a sum.
func (p *pass) checkRange(f rounding) {
	n := p.n.trainable()
	p.zero(p.b.flag, 4)
	p.launch("check_range", flat(n), p.r.grad, p.r.unitsIf(f), f.unit, p.in.micros, p.b.flag, n)
}

func (r *resident) unitsIf(f rounding) device.Ptr {
	if f.own {
		return r.units
	}
	return 0
}

// raw is the memory of x. Devices and the hosts that have them are little-endian.
func raw[T float32 | int64 | int8](x []T) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), len(x)*int(unsafe.Sizeof(x[0])))
}
