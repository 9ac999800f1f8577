package llama_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"testing"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/llama"
	"lorad/model"
	"lorad/model/safetensors"
)

// random is a folder of bf16 weights that has no files: any shape, any size.
type random struct {
	shapes map[string][]int
	noise  []float32
}

func newRandom(cfg model.Config) random {
	r, rnd := random{map[string][]int{}, make([]float32, 1<<20)}, rand.New(rand.NewPCG(1, 2))
	for _, s := range cfg.Tensors() {
		r.shapes[s.Name] = s.Shape
	}
	for i := range r.noise {
		r.noise[i] = float32(rnd.NormFloat64() * 0.02)
	}
	return r
}

func (r random) Read(_ string, first int, dst []float32) error {
	for n := 0; n < len(dst); first += 4097 {
		n += copy(dst[n:], r.noise[first%len(r.noise):])
	}
	return nil
}

func (r random) Tensor(name string) ([]float32, []int, error) {
	x := make([]float32, engine.Tensor{Shape: r.shapes[name]}.Len())
	return x, r.shapes[name], r.Read(name, 0, x)
}

func (r random) Raw(name string) ([]byte, safetensors.DType, []int, error) {
	return make([]byte, 2*engine.Tensor{Shape: r.shapes[name]}.Len()), safetensors.BF16, r.shapes[name], nil
}

func (r random) DType(string) safetensors.DType { return safetensors.BF16 }

func (r random) Packed(name string) (model.Packed, error) {
	return model.Packed{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func wholeTinyLlama() model.Config {
	c := tinyLlama()
	c.NumLayers = 22
	return c
}

// BenchmarkQLoRALoad quantises a base of TinyLlama's shape while it loads, and says what it takes then.
func BenchmarkQLoRALoad(b *testing.B) {
	for _, nested := range []bool{false, true} {
		b.Run(fmt.Sprintf("nested=%v", nested), func(b *testing.B) {
			w := newRandom(wholeTinyLlama())
			for b.Loop() {
				runtime.GC()
				m, err := llama.New(wholeTinyLlama(), w, llama.Adapter{FourBit: &llama.FourBit{Nested: nested}}, cpu.New(2))
				if err != nil {
					b.Fatal(err)
				}
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				b.ReportMetric(float64(m.BaseBytes())/1e9, "base-GB")
				b.ReportMetric(float64(s.HeapSys-s.HeapReleased)/1e9, "heap-GB")
			}
		})
	}
}

// BenchmarkQLoRAStep is one Gradient of 4 sequences of 128 tokens through two layers of TinyLlama's shape.
func BenchmarkQLoRAStep(b *testing.B) {
	cfg := tinyLlama()
	cfg.NumLayers, cfg.VocabSize = 2, 1024
	batch := examples(cfg.VocabSize, 128, 128, 128, 128)
	for _, c := range []struct {
		name string
		four *llama.FourBit
	}{{"f32", nil}, {"nf4", &llama.FourBit{}}, {"nested", &llama.FourBit{Nested: true}}} {
		b.Run(c.name, func(b *testing.B) {
			m, err := llama.New(cfg, newRandom(cfg), llama.Adapter{LoRA: allLinear(0), FourBit: c.four}, cpu.New(2))
			if err != nil {
				b.Fatal(err)
			}
			grad := make([]float32, len(m.Params()))
			start := cpuTime()
			for b.Loop() {
				if _, err := m.Gradient(batch, 1, engine.Key{}, grad); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpuTime()-start).Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(len(batch.Tokens)*b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
