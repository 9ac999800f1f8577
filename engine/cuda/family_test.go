package cuda

import (
	"slices"
	"testing"

	"lorad/engine"
	"lorad/engine/cuda/gputest"
	"lorad/engine/kernel"
	"lorad/engine/llama"
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

// onGPU is all of them, with the heads that the simulation does not have.
func onGPU() map[string]model.Config {
	all := families()
	mini := all["Phi-3"]
	mini.HeadDim, mini.Window, mini.Sliding = 96, 0, nil
	all["Phi-3-mini"] = mini
	return all
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

// TestHeadAdapter has an adapter on the head, with more labels than the head sees at a time.
func TestHeadAdapter(t *testing.T) {
	big := ragged(97, 110, 96)
	for _, c := range []struct {
		dropout float64
		tied    bool
		targets []string
	}{
		{0, false, []string{"q_proj", "down_proj", "lm_head"}}, {0.25, true, []string{"lm_head", "v_proj"}}, {0.25, false, []string{"lm_head"}},
	} {
		cfg := tiny()
		cfg.NumLayers, cfg.TieEmbeddings = 1, c.tied
		ad := adapterOf(t, cfg, config(c.dropout, c.targets...))
		m, cpu, key := trainer(t, cfg, ad), reference(t, cfg, ad, kernel.F32), engine.Key{Seed: 5, Step: 7, Micro: 3}
		m.net.logitBytes = 1 // the fewest rows at a time
		if s := sizeOf(llama.Batch{Rows: len(big.Tokens), Labelled: big.Labelled()}); s.chunk(m.net) >= big.Labelled() {
			t.Fatal("the head sees all rows at once")
		}
		sameGradients(t, m, cpu, big, key)
		x, y := must(m.Logits(big.Tokens[:20]))(t), must(cpu.Logits(big.Tokens[:20]))(t)
		if d, _ := apart(x, y); !(d < 1e-2) {
			t.Errorf("logits apart by %.2g", d)
		}
	}
}

// TestFamiliesOnGPU does so with the real kernels.
func TestFamiliesOnGPU(t *testing.T) {
	gputest.Each(t, func(t *testing.T, open gputest.Opener) {
		for name, cfg := range onGPU() {
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
