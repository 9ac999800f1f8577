package cuda

import (
	"fmt"

	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/engine/cuda/kernels"
	"lorad/engine/llama"
)

// cache is the keys and values of sequences that are being continued, each in a slot of its own. It is taken when something is first generated, and
// given back with the memory of a pass.
type cache struct {
	memory           device.Ptr
	slots, capacity  int          // sequences, and positions of each
	kv               []device.Ptr // by layer: see kernels.Decode
	sums, statistics device.Ptr   // scratch of attention
	best             device.Ptr   // [rows] i32: the most probable tokens
}

// together is how many sequences are continued at a time, and the rows of a pass that does so, however many there are: a product's rows have
// the bits that they have among many, but not those that they have among fewer.
const together = 32

func (n *network) carveCache(c *carver, slots, capacity int) (k cache) {
	k.slots, k.capacity = slots, capacity
	for range n.NumLayers {
		k.kv = append(k.kv, c.bf16(slots*capacity, 2*n.kv))
	}
	shape := kernels.Decode{HeadDim: n.HeadDim, Heads: n.NumHeads, KVHeads: n.NumKVHeads, Sequences: together, Capacity: capacity}
	sums, statistics := shape.Scratch()
	k.sums, k.statistics, k.best = c.f32(sums), c.f32(statistics), c.f32(max(together, bucket(1)))
	return k
}

// reserveCache makes room for sequences of so many positions. Where memory is short fewer are continued at a time.
func (t *Trainer) reserveCache(slots, positions int) error {
	if t.cache.memory != 0 && slots <= t.cache.slots && positions <= t.cache.capacity {
		return nil
	}
	slots, positions = max(slots, t.cache.slots), max((positions+255)&^255, t.cache.capacity)
	t.graphs.release()
	t.release(&t.cache.memory)
	t.cache = cache{}
	free, err := t.dev.Free()
	if err != nil {
		return err
	}
	for ; slots > 0; slots /= 2 {
		var count carver
		t.net.carveCache(&count, slots, positions)
		if count.used+library > free && slots > 1 {
			continue
		}
		if count.used+library > free {
			return fmt.Errorf("cuda: generate: the keys and values of %d tokens take %d MB and the device has %d MB free: %w; lower the number of new tokens",
				positions, (count.used+library)/1e6, free/1e6, engine.ErrOutOfMemory)
		}
		p, err := t.dev.Alloc(count.used)
		if err != nil {
			return outOfMemory(fmt.Sprintf("%d MB of keys and values", count.used/1e6), err)
		}
		t.cache = t.net.carveCache(&carver{base: p}, slots, positions)
		t.cache.memory = p
		return nil
	}
	return nil
}

// reserveSequences makes room for continuing prompts.
func (t *Trainer) reserveSequences(prompts [][]int32, more int) error {
	longest := 0
	for _, p := range prompts {
		longest = max(longest, len(p))
	}
	s := sizeOf(llama.Batch{Rows: longest, Labelled: 1, Longest: longest})
	s.longest = (longest + more + 255) &^ 255
	if err := t.reserve(s); err != nil {
		return err
	}
	return t.reserveCache(min(len(prompts), together), longest+more)
}
