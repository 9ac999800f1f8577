package cuda

import (
	"slices"
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
	phi3 := tiny()
	phi3.NumLayers, phi3.Fused, phi3.Window, phi3.Sliding = 2, true, 30, []bool{true, true}
	phi4, factors := phi3, slices.Repeat([]float64{1}, 24)
	phi4.Window, phi4.Sliding, phi4.RotaryDim = 0, nil, 48
	phi4.RopeScaling = model.RopeScaling{Type: "longrope", OriginalMaxPosition: 30, Short: factors, Long: slices.Repeat([]float64{3}, 24), Attention: 1.2}
	return map[string]model.Config{"Qwen3": qwen3, "Phi-3": phi3, "Phi-4": phi4}
}

// TestFamilies holds them to the CPU engine, and to themselves when layers are computed again.
func TestFamilies(t *testing.T) {
	for name, cfg := range families() {
		t.Run(name, func(t *testing.T) {
			ad := adapterOf(t, cfg, config(0.25, "all-linear"))
			m, key := trainer(t, cfg, ad), engine.Key{Seed: 5, Step: 7, Micro: 3}
			sameGradients(t, m, reference(t, cfg, ad, kernel.F32), batches[0], key)
			if cfg.QKNorm {
				againLeaner(t, m, key)
			}
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
