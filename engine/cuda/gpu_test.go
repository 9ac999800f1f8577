package cuda

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"testing"
	"testing/fstest"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/cuda/gputest"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/model"
	"lorad/model/safetensors"
)

// The tests of this file run the real kernels, on the stand-in GPU or with -gpu on this machine's: what sim_test.go only says they compute.

// folder is a model of waves, stored in bf16.
func folder(t testing.TB, cfg model.Config) *model.Folder {
	t.Helper()
	text := must(json.Marshal(map[string]any{
		"model_type": "llama", "architectures": []string{"LlamaForCausalLM"}, "vocab_size": cfg.VocabSize, "hidden_size": cfg.HiddenSize,
		"intermediate_size": cfg.IntermediateSize, "num_hidden_layers": cfg.NumLayers, "num_attention_heads": cfg.NumHeads, "num_key_value_heads": cfg.NumKVHeads,
		"head_dim": cfg.HeadDim, "rms_norm_eps": cfg.RMSNormEps, "rope_theta": cfg.RopeTheta, "max_position_embeddings": cfg.MaxPosition, "tie_word_embeddings": false,
		"hidden_act": "silu", "dtype": "bfloat16",
	}))(t)
	var all []safetensors.Tensor
	w := newWaves(cfg)
	for _, s := range cfg.Tensors() {
		x, shape, _ := w.Tensor(s.Name)
		all = append(all, safetensors.Tensor{Name: s.Name, Shape: shape, Data: x, DType: safetensors.BF16})
	}
	var b bytes.Buffer
	if err := safetensors.Write(&b, all, nil); err != nil {
		t.Fatal(err)
	}
	return must(model.Open(fstest.MapFS{"config.json": {Data: text}, "model.safetensors": {Data: b.Bytes()}}))(t)
}

// TestStepsOnGPU holds whole steps to the CPU engine: bf16 and NF4, with dropout and without, and with layers that are computed again.
func TestStepsOnGPU(t *testing.T) {
	cfg := tiny()
	cfg.NumLayers = 2
	base := folder(t, cfg)
	gputest.Each(t, func(t *testing.T, open gputest.Opener) {
		for _, c := range []struct {
			name    string
			dropout float64
			fourBit *llama.FourBit
		}{
			{"bf16", 0, nil}, {"dropout", 0.25, nil}, {"NF4", 0, &llama.FourBit{}}, {"NF4, nested scales", 0, &llama.FourBit{Nested: true}},
		} {
			t.Run(c.name, func(t *testing.T) {
				ad := adapterOf(t, cfg, config(c.dropout, "all-linear"))
				ad.FourBit = c.fourBit
				m := must(New(base.Config(), base, ad, must(open())(t)))(t)
				defer m.Close()
				ad.Precision = kernel.F32
				key := engine.Key{Seed: 5, Step: 7, Micro: 3}
				sameGradients(t, m, must(llama.New[float32](base.Config(), base, ad, cpu.New(2)))(t), batches[0], key)
				if c.dropout > 0 {
					againLeaner(t, m, key)
				}
			})
		}
	})
}

// againLeaner holds the bits of a gradient to those of the same when more is computed again.
func againLeaner(t *testing.T, m *Trainer, key engine.Key) {
	t.Helper()
	want, got := make([]float32, len(m.Params())), make([]float32, len(m.Params()))
	loss := must(m.Gradient(batches[0], 0.01, key, want))(t)
	must(m.Gradient(batches[1], 0.01, key, got))(t)
	for {
		if l := must(m.Gradient(batches[0], 0.01, key, got))(t); l != loss || !slices.Equal(got, want) {
			t.Errorf("other bits with %+v", m.Plan())
		}
		if !m.Leaner() {
			return
		}
	}
}

// TestCurveOnGPU trains on both engines. The kernels' curve is the CPU's.
func TestCurveOnGPU(t *testing.T) {
	cfg := tiny()
	cfg.NumLayers = 1
	ad := llama.Adapter{LoRA: config(0, "all-linear"), Seed: 3, Precision: kernel.BF16}
	gputest.Each(t, func(t *testing.T, open gputest.Opener) {
		m := must(New(cfg, newWaves(cfg), ad, must(open())(t)))(t)
		defer m.Close()
		a, b := curve(t, m, 12), curve(t, reference(t, cfg, ad, kernel.BF16), 12)
		for i := range a {
			if !(math.Abs(a[i]-b[i]) <= 1e-2) {
				t.Errorf("step %d: loss %.4f, the CPU engine has %.4f", i, a[i], b[i])
			}
		}
		t.Logf("loss %.4f to %.4f", a[0], a[len(a)-1])
	})
}
