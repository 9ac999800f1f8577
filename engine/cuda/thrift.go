package cuda

import (
	"errors"
	"fmt"

	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/engine/llama"
)

var _ engine.Thrifty = (*Trainer)(nil)

// Growth is no memory of the host's, which is what others ask for: what there is too little of on the device, Gradient says itself.
func (t *Trainer) Growth(engine.Batch) int64 { return 0 }

// Leaner has twice as many layers computed again in the backward pass: the same bits.
func (t *Trainer) Leaner() bool {
	most := 2 * t.net.backward()
	if t.recompute >= most {
		return false
	}
	t.drop()
	t.recompute = min(most, max(1, 2*t.recompute))
	return true
}

// Prepare takes the memory for steps of micro-batches up to that size.
func (t *Trainer) Prepare(largest llama.Batch) error { return t.reserve(sizeOf(largest)) }

// reserve makes room for a pass. Sizes only grow, so that a run in which they repeat takes memory once. If the device is short of memory, more
// layers are computed again; when that does not help either, the error is an engine.ErrOutOfMemory.
func (t *Trainer) reserve(s size) error {
	if t.step != 0 && s.rows <= t.size.rows && s.labelled <= t.size.labelled && s.longest <= t.size.longest {
		return nil
	}
	t.largest = size{max(s.rows, t.largest.rows), max(s.labelled, t.largest.labelled), max(s.longest, t.largest.longest)}
	t.drop()
	for {
		err := t.allocate(t.largest)
		if err == nil || !errors.Is(err, engine.ErrOutOfMemory) || !t.Leaner() {
			return err
		}
	}
}

// allocate takes the memory of a pass, if it is there: what the plan says is held against what is free before anything is taken.
func (t *Trainer) allocate(s size) error {
	var count carver
	t.net.carvePass(&count, s, t.recompute)
	free, err := t.dev.Free()
	if err != nil {
		return err
	}
	if count.used+library > free {
		return fmt.Errorf("cuda: a micro-batch of %d tokens takes %d MB and the device has %d MB free: %w; lower micro_batch_size or sequence_len, or give load_in_4bit: true",
			s.rows, (count.used+library)/1e6, free/1e6, engine.ErrOutOfMemory)
	}
	p, err := t.dev.Alloc(count.used)
	if err != nil {
		return outOfMemory(fmt.Sprintf("%d MB of activations", count.used/1e6), err)
	}
	t.step, t.size = p, s
	t.buffers, _ = t.net.carvePass(&carver{base: p}, s, t.recompute)
	t.block = make([]byte, inputBytes(s))
	return t.tables()
}

// outOfMemory says in the engine's words what the device says in its own.
func outOfMemory(what string, err error) error {
	if errors.Is(err, device.ErrOutOfMemory) {
		return fmt.Errorf("cuda: allocate %s: %w: %w", what, engine.ErrOutOfMemory, err)
	}
	return fmt.Errorf("cuda: allocate %s: %w", what, err)
}

// tables writes the rotations of all positions that there is room for, and the ones that biases need.
func (t *Trainer) tables() error {
	for i := range t.net.tables(t.size.longest) {
		sequence := 1
		if i > 0 {
			sequence = t.size.longest
		}
		cos, sin, err := llama.Rotations(t.net.Config, t.size.longest, sequence)
		if err != nil {
			return err
		}
		at := device.Ptr(4 * i * len(cos))
		t.ops.upload(t.buffers.cos+at, floats(cos))
		t.ops.upload(t.buffers.sin+at, floats(sin))
	}
	if t.net.QKVBias {
		ones := make([]byte, 2*biasRows*t.size.rows)
		for i := 0; i < len(ones); i += 2 * biasRows {
			ones[i+1], ones[i] = 0x3f, 0x80 // 1 in bf16
		}
		t.ops.upload(t.buffers.ones, ones)
	}
	return t.ops.take()
}

// drop gives the memory of a pass back, and with it everything that was recorded on it.
func (t *Trainer) drop() {
	t.graphs.release()
	t.release(&t.cache.memory)
	t.cache = cache{}
	t.release(&t.step)
	t.buffers, t.size = buffers{}, size{}
}
