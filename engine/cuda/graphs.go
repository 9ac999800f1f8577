package cuda

import "lorad/engine/cuda/device"

// graphKey is what a recorded pass follows from.
type graphKey struct {
	shape
	train bool
	rounding
}

// graphs keeps recorded passes, so that a micro-batch is one launch. How long a sequence is, how many labels there are and so on do not change
// what is launched: only the numbers of rows do, and those are rounded to few.
type graphs struct {
	made map[graphKey]*recorded
	used int // counts launches
}

type recorded struct {
	device.Graph
	last int
}

// maxGraphs bounds what is kept: a graph takes a megabyte or two of the device's memory.
const maxGraphs = 48

// graph is the recorded pass of a shape.
func (t *Trainer) graph(s shape, train bool) (device.Graph, error) {
	key := graphKey{s, train, t.sum.rounding()}
	t.graphs.used++
	if g := t.graphs.made[key]; g != nil {
		g.last = t.graphs.used
		return g, nil
	}
	t.graphs.makeRoom()
	g, err := t.dev.Record(func() error { return t.pass(s, train) })
	if err != nil {
		return nil, outOfMemory("a recorded step", err)
	}
	if t.graphs.made == nil {
		t.graphs.made = map[graphKey]*recorded{}
	}
	t.graphs.made[key] = &recorded{g, t.graphs.used}
	return g, nil
}

// pass launches all of a micro-batch.
func (t *Trainer) pass(s shape, train bool) error {
	p, f := t.newPass(s, train), t.sum.rounding()
	if train {
		p.toFixed(p.r, f, p.in.skip, t.net.trainable())
	}
	p.forward()
	if s.use != whole {
		p.logits(p.kept(t.net.NumLayers-1), p.in.index, 0, s.labelled)
		p.argmax(t.buffers.logits, t.cache.best, s.labelled, t.net.VocabSize)
		return p.take()
	}
	p.head(t.size.chunk(t.net))
	if train {
		p.backward(t.recompute)
		p.checkRange(f)
	}
	return p.take()
}

func (t *Trainer) newPass(s shape, train bool) *pass {
	return &pass{ops: &t.ops, n: t.net, r: &t.resident, b: &t.buffers, in: s.inputs(t.buffers.inputs), shape: s, cache: &t.cache, train: train}
}

// makeRoom drops what was not used for longest.
func (g *graphs) makeRoom() {
	if len(g.made) < maxGraphs {
		return
	}
	var oldest graphKey
	at := g.used + 1
	for key, r := range g.made { // the numbers differ, so the order does not matter
		if r.last < at {
			oldest, at = key, r.last
		}
	}
	g.made[oldest].Release()
	delete(g.made, oldest)
}

func (g *graphs) release() {
	for _, r := range g.made {
		r.Release()
	}
	*g = graphs{}
}
