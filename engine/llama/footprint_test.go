package llama

import (
	"io/fs"
	"math"
	"runtime"
	"testing"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/model"
	"lorad/model/peft"
)

// What is measured without weights is what a model then takes, and steps take nothing more.
func TestFootprintIsWhatIsTaken(t *testing.T) {
	plain := model.Config{VocabSize: 800, HiddenSize: 128, IntermediateSize: 352, NumLayers: 3, NumHeads: 4, NumKVHeads: 2, HeadDim: 32, RMSNormEps: 1e-5, RopeTheta: 10000}
	tied, odd := plain, plain
	tied.TieEmbeddings = true
	odd.QKNorm, odd.PostNorms, odd.GELU = true, true, true
	fused := plain
	fused.Fused = true
	lora := func(dropout float64, targets ...string) Adapter {
		return Adapter{LoRA: &peft.LoraConfig{R: 16, Alpha: 32, Dropout: dropout, TargetModules: targets}}
	}
	for name, c := range map[string]struct {
		cfg    model.Config
		ad     Adapter
		budget int64
	}{
		"lora":       {plain, lora(0, "all-linear"), math.MaxInt64},
		"tied":       {tied, lora(0, "all-linear"), math.MaxInt64},
		"recomputed": {plain, lora(0, "all-linear"), 3 << 20},
		"dropout":    {plain, lora(0.1, "all-linear"), math.MaxInt64},
		"upper":      {plain, lora(0, "layers.2.mlp.down_proj"), math.MaxInt64},
		"full":       {plain, Adapter{Full: true}, math.MaxInt64},
		"odd":        {odd, lora(0, "all-linear"), math.MaxInt64},
		"fused":      {fused, lora(0, "all-linear"), math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) { footprint(t, c.cfg, c.ad, c.budget) })
	}
}

// largest is the size of packed(256 - 8).
var largest = Batch{Rows: 256, Labelled: 171, Longest: 248}

func footprint(t *testing.T, cfg model.Config, ad Adapter, budget int64) {
	f, err := Measure(cfg, ad, 2, largest)
	if err != nil {
		t.Fatal(err)
	}
	f = f.Fit(budget)
	want := f.Base + 4*int64(f.Params) + f.Activations()
	before := heap()
	m, err := New[float32](cfg, waves{cfg}, ad, cpu.New(2))
	if err != nil {
		t.Fatal(err)
	}
	m.Prepare(largest, budget-f.Step)
	if m.buf.again != f.Recomputed || len(m.params) != f.Params {
		t.Errorf("%d layers computed again and %d parameters, measured were %d and %d", m.buf.again, len(m.params), f.Recomputed, f.Params)
	}
	got := heap() - before
	if off := math.Abs(float64(got-want)) / float64(want); off > 0.02 {
		t.Errorf("%d bytes taken, %d measured: %.1f %% off", got, want, 100*off)
	}
	if _, err := m.Gradient(packed(cfg.VocabSize, largest.Rows-8), 1, engine.Key{}, make([]float32, len(m.params))); err != nil {
		t.Fatal(err)
	}
	if more := heap() - before - got; more > want/20+8<<20 { // scratch of the kernels
		t.Errorf("a step took %d bytes more", more)
	}
	runtime.KeepAlive(m)
}

// waves are weights that cost nothing to make.
type waves struct{ cfg model.Config }

func (w waves) Tensor(name string) ([]float32, []int, error) {
	for _, t := range w.cfg.Tensors() {
		if t.Name == name {
			data := make([]float32, engine.Tensor{Shape: t.Shape}.Len())
			for i := range data {
				data[i] = float32(i%13-6) / 64
			}
			return data, t.Shape, nil
		}
	}
	return nil, nil, fs.ErrNotExist
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func TestFit(t *testing.T) {
	f := Footprint{Layers: 4, Layer: 10, Input: 2, Step: 5}
	for budget, want := range map[int64]int{1000: 0, 45: 0, 44: 1, 37: 1, 36: 2, 13: 4, 0: 4} {
		if got := f.Fit(budget); got.Recomputed != want || got.Activations() > budget && want < 4 {
			t.Errorf("%d bytes: %d layers again, %d bytes", budget, got.Recomputed, got.Activations())
		}
	}
}
