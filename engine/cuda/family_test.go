package cuda

import (
	"testing"

	"lorad/engine"
	"lorad/engine/cuda/gputest"
	"lorad/engine/kernel"
	"lorad/model"
)

// families is what other models have than Llama's.
func families() map[string]model.Config {
	qwen3 := tiny()
	qwen3.NumLayers = 2
	qwen3.QKNorm, qwen3.RMSNormEps, qwen3.HiddenSize, qwen3.TieEmbeddings = true, 1e-6, 192, true // wider than its heads together
	return map[string]model.Config{"Qwen3": qwen3}
}

// TestFamilies holds them to the CPU engine, and to themselves when layers are computed again.
func TestFamilies(t *testing.T) {
	for name, cfg := range families() {
		t.Run(name, func(t *testing.T) {
			ad := adapterOf(t, cfg, config(0.25, "all-linear"))
			m, key := trainer(t, cfg, ad), engine.Key{Seed: 5, Step: 7, Micro: 3}
			sameGradients(t, m, reference(t, cfg, ad, kernel.F32), batches[0], key)
			againLeaner(t, m, key)
		})
	}
}

// TestFamiliesOnGPU does so with the real kernels.
func TestFamiliesOnGPU(t *testing.T) {
	gputest.Each(t, func(t *testing.T, open gputest.Opener) {
		for name, cfg := range families() {
			t.Run(name, func(t *testing.T) {
				cfg.NumLayers = 1
				ad := adapterOf(t, cfg, config(0, "all-linear"))
				m := must(New(cfg, newWaves(cfg), ad, must(open())(t)))(t)
				defer m.Close()
				sameGradients(t, m, reference(t, cfg, ad, kernel.F32), batches[0], engine.Key{})
			})
		}
	})
}
