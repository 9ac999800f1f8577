package llama_test

import (
	"fmt"
	"hash/fnv"
	"syscall"
	"testing"
	"time"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/model"
	"lorad/model/peft"
)

// tinyLlama is TinyLlama's shape, with 4 of its 22 layers: the model of docs/benchmarks.md.
func tinyLlama() model.Config {
	return model.Config{
		VocabSize: 32000, HiddenSize: 2048, IntermediateSize: 5632, NumLayers: 4, NumHeads: 32, NumKVHeads: 4, HeadDim: 64,
		RMSNormEps: 1e-5, RopeTheta: 10000, MaxPosition: 2048,
	}
}

// cpuTime is what this process has used: on a shared machine the best measure of work.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// noise is a source of weights that holds none: each is drawn when it is asked for.
type noise struct{ shapes map[string][]int }

func newNoise(cfg model.Config) noise {
	n := noise{map[string][]int{}}
	for _, t := range cfg.Tensors() {
		n.shapes[t.Name] = t.Shape
	}
	return n
}

func (n noise) Tensor(name string) ([]float32, []int, error) {
	shape, ok := n.shapes[name]
	if !ok {
		return nil, nil, fmt.Errorf("no %s", name)
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	x, size := h.Sum64(), 1
	for _, d := range shape {
		size *= d
	}
	data := make([]float32, size)
	for i := range data {
		x = x*6364136223846793005 + 1442695040888963407
		data[i] = float32(int32(x>>32)) * (0.03 / (1 << 31))
		if len(shape) == 1 {
			data[i] += 1
		}
	}
	return data, shape, nil
}

// BenchmarkTinyLlama is a LoRA step of 4 sequences of 256 tokens, rank 16 on all linear layers.
func BenchmarkTinyLlama(b *testing.B) {
	for _, p := range []kernel.Precision{kernel.F32, kernel.BF16} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/%d", p, threads), func(b *testing.B) { tinyStep(b, p, threads) })
		}
	}
}

func tinyStep(b *testing.B, p kernel.Precision, threads int) {
	cfg := tinyLlama()
	m, err := llama.New(cfg, newNoise(cfg), llama.Adapter{LoRA: &peft.LoraConfig{R: 16, Alpha: 32, TargetModules: []string{"all-linear"}}, Precision: p}, cpu.New(threads))
	if err != nil {
		b.Fatal(err)
	}
	batch := examples(cfg.VocabSize, 256, 256, 256, 256)
	grad := make([]float32, len(m.Params()))
	run := func() {
		if _, err := m.Gradient(batch, 1, engine.Key{}, grad); err != nil {
			b.Fatal(err)
		}
	}
	run()
	b.ReportAllocs()
	start := cpuTime()
	for b.Loop() {
		run()
	}
	b.ReportMetric((cpuTime()-start).Seconds()/float64(b.N), "cpu-s/op")
	b.ReportMetric(float64(len(batch.Tokens)*b.N)/b.Elapsed().Seconds(), "tokens/s")
}
