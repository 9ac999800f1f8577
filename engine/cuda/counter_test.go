package cuda

import (
	"errors"
	"slices"
	"testing"

	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/engine/llama"
)

// counter counts what the host asks of a device.
type counter struct {
	device.Device
	allocs, uploads, downloads, launches, graphs, records int
}

func (c *counter) Alloc(n int64) (device.Ptr, error) { c.allocs++; return c.Device.Alloc(n) }

func (c *counter) Upload(p device.Ptr, b []byte) error { c.uploads++; return c.Device.Upload(p, b) }

func (c *counter) Download(b []byte, p device.Ptr) error {
	c.downloads++
	return c.Device.Download(b, p)
}

func (c *counter) Launch(k string, g device.Grid, a ...any) error {
	c.launches++
	return c.Device.Launch(k, g, a...)
}

func (c *counter) Gemm(ta, tb bool, m, n, k int, alpha float32, a, b device.Matrix, beta float32, x device.Matrix) error {
	c.launches++
	return c.Device.Gemm(ta, tb, m, n, k, alpha, a, b, beta, x)
}

type countedGraph struct {
	device.Graph
	c *counter
}

func (c *counter) Record(f func() error) (device.Graph, error) {
	c.records++
	before := c.launches
	g, err := c.Device.Record(f)
	c.launches = before
	return countedGraph{g, c}, err
}

// The host launches one graph per micro-batch, and one more when the parameters have changed.
func TestOneLaunch(t *testing.T) {
	cfg := tiny()
	dev := &counter{Device: newSim(roomy)}
	m := must(New(cfg, newWaves(cfg), adapterOf(t, cfg, config(0.1, "all-linear")), dev))(t)
	grad := make([]float32, len(m.Params()))
	if err := m.Prepare(llama.Batch{Rows: 256, Labelled: 256, Longest: 256}); err != nil {
		t.Fatal(err)
	}
	for i, b := range []engine.Batch{batches[0], ragged(97, 30, 30, 10), batches[0]} { // one shape
		if i == 2 {
			m.Changed()
		}
		want := *dev
		want.uploads, want.downloads, want.graphs = want.uploads+1, want.downloads+2, want.graphs+1
		if i == 0 {
			want.records += 2
		}
		if i != 1 {
			want.uploads, want.graphs = want.uploads+1, want.graphs+1
		}
		must(m.Gradient(b, 1, engine.Key{Step: uint32(i)}, grad))(t)
		if *dev != want {
			t.Errorf("micro-batch %d: %+v, want %+v", i, *dev, want)
		}
	}
}

// Memory that is not there is met by computing more again, and then by an error that says how much was missing.
func TestOutOfMemory(t *testing.T) {
	cfg := tiny()
	ad := adapterOf(t, cfg, config(0, "all-linear"))
	b := batches[0]
	largest := llama.Batch{Rows: len(b.Tokens), Labelled: b.Labelled(), Longest: 40}
	plan := must(NewPlan(cfg, ad, largest, 0))(t)
	want := make([]float32, 0)
	for free := plan.Peak; ; free -= plan.Activations / 4 {
		m := must(New(cfg, newWaves(cfg), ad, newSim(free)))(t)
		grad := make([]float32, len(m.Params()))
		_, err := m.Gradient(b, 1, engine.Key{}, grad)
		p, refused := NewPlan(cfg, ad, largest, free)
		if (err != nil) != (refused != nil) {
			t.Fatalf("with %d bytes free the plan says %v, the trainer %v", free, refused, err)
		}
		if err != nil {
			if !errors.Is(err, engine.ErrOutOfMemory) || !errors.Is(refused, engine.ErrOutOfMemory) {
				t.Errorf("%v; %v", err, refused)
			}
			if len(want) == 0 || free > plan.Peak-plan.Activations/3 {
				t.Errorf("refused with %d bytes free, of %d", free, plan.Peak)
			}
			return
		}
		if p.Recompute > 2*p.Layers || p.Peak > free {
			t.Errorf("%d bytes free: %+v", free, p)
		}
		if len(want) > 0 && !slices.Equal(grad, want) {
			t.Errorf("%d bytes free: other bits", free)
		}
		want = grad
	}
}
