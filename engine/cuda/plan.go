package cuda

import (
	"fmt"

	"lorad/engine"
	"lorad/engine/llama"
	"lorad/model"
)

// level is how much a layer keeps for its backward pass.
type level int

const (
	keepAll   level = iota // everything but what costs less to compute again than to read: norms, silu(gate)*up
	keepAttn               // not gate and up either: one product is computed again
	keepInput              // its input only: the layer is computed again
)

// levelOf is that of layer i of so many. Of the 2*layers degrees of recomputation the first half takes gate and up from one layer after the other: it is
// what saves most bytes per operation. The second half takes the rest.
func levelOf(i, layers, recompute int) level {
	switch {
	case i < recompute-layers:
		return keepInput
	case i < recompute:
		return keepAttn
	}
	return keepAll
}

// size is what memory and recorded work follow from: numbers of rows, rounded up.
type size struct {
	rows     int
	labelled int
	longest  int // positions
}

// sizeOf rounds a micro-batch up.
func sizeOf(b llama.Batch) size {
	s := size{rows: bucket(b.Rows), labelled: bucket(b.Labelled)}
	s.longest = (max(b.Longest, s.rows-b.Rows) + 255) &^ 255
	return s
}

// rowUnit is what numbers of rows are multiples of.
const rowUnit = 64

// bucket rounds up to one of 16 numbers between powers of two, so that few sizes occur and no more than a sixteenth of the rows is padding,
// where there are many. It depends on n alone: so do the bits of a gradient.
func bucket(n int) int {
	unit := rowUnit
	for unit*32 < n {
		unit *= 2
	}
	return max(1, (n+unit-1)/unit) * unit
}

// logitBytes is about what logits and their gradient take at a time.
const logitBytes = 96 << 20

// chunk is how many rows the head sees at a time: as many as logitBytes allow, but enough for a product to be worth its weights.
func (s size) chunk(n *network) int {
	rows := n.logitBytes / (6 * n.VocabSize) / rowUnit * rowUnit
	return min(s.labelled, max(rows, 2*rowUnit))
}

// Plan is what of a device's memory a trainer takes, in bytes, part by part.
type Plan struct {
	Weights     int64 `json:"weights"`     // frozen, with the adapters' copies in bf16 around them
	Adapters    int64 `json:"adapters"`    // trainable parameters and their gradient
	Activations int64 `json:"activations"` // what layers keep for their backward pass
	Scratch     int64 `json:"scratch"`     // all other buffers of a step
	Peak        int64 `json:"peak"`        // the sum, with what the libraries take

	Layers    int `json:"layers"`    // with a backward pass
	Recompute int `json:"recompute"` // 0 .. 2*Layers: see Recomputed
}

// library is what cuBLAS, recorded graphs and loaded kernels take besides the arena; what the driver's context takes is gone already
// when free memory is asked for.
const library = 128 << 20

// Recomputed is how many layers compute gate and up again, and how many compute everything again.
func (p Plan) Recomputed() (gates, all int) {
	all = max(0, p.Recompute-p.Layers)
	return min(p.Recompute, p.Layers) - all, all
}

// NewPlan plans the memory of micro-batches up to the largest on a device with so many free bytes (0: not known). As few layers as possible
// are computed again. What does not fit at all is refused: the error is an engine.ErrOutOfMemory and has the numbers.
func NewPlan(cfg model.Config, ad llama.Adapter, largest llama.Batch, free int64) (Plan, error) {
	n, err := newNetwork(cfg, ad)
	if err != nil {
		return Plan{}, err
	}
	return n.plan(sizeOf(largest), free, 0)
}

// plan starts from a degree of recomputation.
func (n *network) plan(s size, free int64, recompute int) (Plan, error) {
	for ; ; recompute++ {
		p := n.planned(s, recompute)
		if free == 0 || p.Peak <= free {
			return p, nil
		}
		if recompute >= 2*n.backward() {
			return p, fmt.Errorf("cuda: plan: a micro-batch of %d tokens takes %d MB, even if every layer is computed again, and the device has %d MB free: %w; %s",
				s.rows, p.Peak/1e6, free/1e6, engine.ErrOutOfMemory, "lower micro_batch_size or sequence_len, or give load_in_4bit: true")
		}
	}
}

func (n *network) planned(s size, recompute int) Plan {
	var c carver
	p := Plan{Layers: n.backward(), Recompute: recompute}
	r := n.carveWeights(&c)
	p.Weights = c.used
	n.carveAdapters(&c, &r)
	p.Adapters = c.used - p.Weights
	var pass carver
	_, p.Activations = n.carvePass(&pass, s, recompute)
	p.Scratch = pass.used - p.Activations
	p.Peak = c.used + pass.used + library
	return p
}
