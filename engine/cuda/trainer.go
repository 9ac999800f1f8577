package cuda

import (
	"errors"
	"fmt"
	"math"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/cuda/device"
	"lorad/engine/llama"
	"lorad/model"
)

// Trainer computes with one model on one device. It is not safe for concurrent use.
type Trainer struct {
	net    *network
	dev    device.Device
	ops    ops
	params []float32
	stale  bool // params are not yet those on the device

	memory    device.Ptr // of what stays
	resident  resident
	step      device.Ptr // memory of a pass; 0: none
	buffers   buffers
	size      size // that there is room for
	largest   size // that was asked for: see Prepare
	recompute int
	cache     cache

	sum     sum
	graphs  graphs
	refresh device.Graph // the copies of params in bf16
	block   []byte       // inputs on their way
	losses  []float32
}

var _ engine.Trainer = (*Trainer)(nil)

// New loads a model onto a device, which the trainer owns from now on and Close closes.
func New(cfg model.Config, w llama.Weights, ad llama.Adapter, dev device.Device) (*Trainer, error) {
	n, err := newNetwork(cfg, ad)
	if err != nil {
		return nil, err
	}
	return build(n, w, ad, dev)
}

func build(n *network, w llama.Weights, ad llama.Adapter, dev device.Device) (t *Trainer, err error) {
	t = &Trainer{net: n, dev: dev, ops: ops{dev: dev}, stale: true}
	if t.params, err = llama.Initial(n.Config, ad); err != nil {
		return nil, err
	}
	if err := t.load(w, ad.FourBit); err != nil {
		t.release(&t.memory)
		return nil, err
	}
	dev.Pin(raw(t.params)) // where that is not allowed, they take the longer way
	return t, nil
}

// NewFrozen is New for a model that is used and not trained: there is no gradient, and no memory is kept for one.
func NewFrozen(cfg model.Config, w llama.Weights, ad llama.Adapter, dev device.Device) (*Trainer, error) {
	n, err := newNetwork(cfg, ad)
	if err != nil {
		return nil, err
	}
	n.lowest, n.frozen = stages*n.NumLayers, true
	return build(n, w, ad, dev)
}

// load takes the memory of what stays, and fills it.
func (t *Trainer) load(w llama.Weights, as *llama.FourBit) error {
	var count carver
	t.net.carve(&count)
	p, err := t.dev.Alloc(count.used)
	if err != nil {
		return outOfMemory(fmt.Sprintf("%d MB of weights", count.used/1e6), err)
	}
	t.memory = p
	t.resident = t.net.carve(&carver{base: p})
	stored, _ := w.(llama.Stored)
	l := loader{ops: &t.ops, net: t.net, from: w, stored: stored, packer: llama.Packer{From: stored, As: as, Parallel: cpu.New(0).Parallel}}
	if n := t.net.staged(); n > 0 {
		if l.stage, err = t.dev.Alloc(n); err != nil {
			return outOfMemory(fmt.Sprintf("%d MB to load weights through", n/1e6), err)
		}
		defer t.release(&l.stage)
	}
	return l.all(&t.resident)
}

// carve is all that stays.
func (n *network) carve(c *carver) resident {
	r := n.carveWeights(c)
	n.carveAdapters(c, &r)
	return r
}

// Layout lists the trainable tensors in the order of their offsets: the CPU engine's.
func (t *Trainer) Layout() []engine.Tensor { return t.net.layout }

// Params is the live flat vector, in the host's memory.
func (t *Trainer) Params() []float32 { return t.params }

// Changed has the next pass bring Params to the device.
func (t *Trainer) Changed() { t.stale, t.sum.held = true, false }

// Device is what it computes on.
func (t *Trainer) Device() device.Info { return t.dev.Info() }

// Plan is the memory that is taken, or would be by a pass of the largest micro-batch.
func (t *Trainer) Plan() Plan { return t.net.planned(t.largest, t.recompute) }

// Gradient overwrites grad with d(scale * sum of token losses)/d(Params) and returns the unscaled sum, in nats.
func (t *Trainer) Gradient(b engine.Batch, scale float32, key engine.Key, grad []float32) (float64, error) {
	if len(grad) != len(t.params) {
		return 0, fmt.Errorf("cuda: gradient: %d elements, but the model trains %d", len(grad), len(t.params))
	}
	t.sum.held = false
	loss, labelled, err := t.run(b, scale, key, len(grad) > 0)
	if err != nil || labelled == 0 {
		clear(grad)
		return 0, err
	}
	t.ops.download(raw(grad), t.resident.grad)
	return loss, t.ops.take()
}

// Loss is the sum of the token losses without dropout, in nats.
func (t *Trainer) Loss(b engine.Batch) (float64, error) {
	loss, _, err := t.run(b, 1, engine.Key{}, false)
	return loss, err
}

// run does one micro-batch: one copy to the device, one recorded launch, one copy back.
func (t *Trainer) run(b engine.Batch, scale float32, key engine.Key, train bool) (loss float64, labelled int, err error) {
	if train && t.net.frozen {
		return 0, 0, errors.New("cuda: gradient: this model was opened to be used, not trained")
	}
	p, err := t.net.newBatch(b)
	if err != nil || len(p.index) == 0 {
		return 0, 0, err
	}
	if err := t.reserve(p.size); err != nil {
		return 0, 0, err
	}
	if err := t.launch(p, scale, key, train); err != nil {
		return 0, 0, err
	}
	loss, err = t.sumLosses(len(p.index))
	if train {
		t.sum.due, t.sum.fits = false, math.Float32bits(t.losses[0]) == 0
	}
	return loss, len(p.index), err
}

// launch brings what a pass needs, and has it computed.
func (t *Trainer) launch(p *batch, scale float32, key engine.Key, train bool) error {
	g, err := t.graph(p.shape, train)
	if err != nil {
		return err
	}
	if train {
		t.readySum()
	}
	if err := t.bring(p, scale, key); err != nil {
		return err
	}
	return g.Launch()
}

// bring copies what a pass needs to the device.
func (t *Trainer) bring(p *batch, scale float32, key engine.Key) error {
	if t.stale && len(t.params) > 0 {
		t.round() // the parameters take the gradient's place
		t.ops.upload(t.resident.params, raw(t.params))
		if t.ops.err == nil {
			t.ops.err = t.refreshed()
		}
	}
	in := p.shape.inputs(t.buffers.inputs)
	p.pack(t.block, scale, key, t.size.longest)
	t.sum.pack(t.block)
	t.ops.upload(t.buffers.inputs, t.block[:in.bytes])
	t.stale = t.ops.err != nil
	return t.ops.take()
}

// refreshed makes the copies of the parameters that the products want.
func (t *Trainer) refreshed() (err error) {
	if t.refresh == nil {
		if t.refresh, err = t.dev.Record(func() error { t.copies(); return t.ops.take() }); err != nil {
			return err
		}
	}
	return t.refresh.Launch()
}

func (t *Trainer) copies() {
	at := func(offset int) device.Ptr { return t.resident.params + device.Ptr(4*offset) }
	group := func(g *group, w *weights) {
		for _, l := range g.parts {
			if l.rank > 0 {
				t.ops.cast(at(l.a), below(w.a, l.col), l.rank, g.in, 1)
				t.ops.cast(at(l.b), right(below(w.b, l.row), l.col), l.out, l.rank, l.scale)
			}
		}
	}
	for i := range t.net.groups {
		for s := range stages {
			group(&t.net.groups[i][s], &t.resident.groups[i][s])
		}
	}
	group(&t.net.head, &t.resident.headAdapter)
}

// sumLosses adds up in float64, in the order of the rows. Before them is what checkRange says.
func (t *Trainer) sumLosses(n int) (sum float64, err error) {
	if cap(t.losses) < 1+n {
		t.losses = make([]float32, 1+n)
	}
	t.losses = t.losses[:1+n]
	t.ops.download(raw(t.losses), t.buffers.flag)
	for _, l := range t.losses[1:] {
		sum += float64(l)
	}
	return sum, t.ops.take()
}

// Close gives everything back.
func (t *Trainer) Close() error {
	t.drop()
	if t.refresh != nil {
		t.refresh.Release()
	}
	t.release(&t.memory)
	return t.dev.Close()
}

func (t *Trainer) release(p *device.Ptr) {
	if *p != 0 {
		t.dev.Release(*p)
	}
	*p = 0
}

// scoreScale is what multiplies attention's scores.
func (n *network) scoreScale() float32 {
	if n.ScoreScale != 0 {
		return float32(n.ScoreScale)
	}
	return float32(1 / math.Sqrt(float64(n.HeadDim)))
}
