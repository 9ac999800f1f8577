package llama

import (
	"slices"
	"testing"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/model"
	"lorad/model/peft"
)

// A leaner model takes less memory and gives the same bits, down to the least.
func TestLeanerKeepsTheBits(t *testing.T) {
	cfg := model.Config{VocabSize: 300, HiddenSize: 64, IntermediateSize: 96, NumLayers: 5, NumHeads: 4, NumKVHeads: 2, HeadDim: 16, RMSNormEps: 1e-5, RopeTheta: 10000}
	ad := Adapter{LoRA: &peft.LoraConfig{R: 4, Alpha: 8, Dropout: 0.1, TargetModules: []string{"all-linear"}}}
	m, err := New[float32](cfg, waves{cfg}, ad, cpu.New(2))
	if err != nil {
		t.Fatal(err)
	}
	b := packed(cfg.VocabSize, 40)
	want := make([]float32, len(m.Params()))
	loss, err := m.Gradient(b, 1, engine.Key{Seed: 1}, want)
	if err != nil {
		t.Fatal(err)
	}
	if n := m.Growth(b); n != 0 {
		t.Errorf("the same batch again takes %d bytes more", n)
	}
	twice := 0
	for last := int64(1 << 40); m.Leaner(); twice++ {
		grown := m.Growth(b)
		if grown <= 0 || grown >= last {
			t.Fatalf("%d bytes after %d", grown, last)
		}
		last = grown
		got := make([]float32, len(want))
		again, err := m.Gradient(b, 1, engine.Key{Seed: 1}, got)
		if err != nil || again != loss || !slices.Equal(got, want) {
			t.Fatalf("the leaner model gives other bits: loss %v and %v, %v", again, loss, err)
		}
	}
	if twice < 2 {
		t.Errorf("it became leaner %d times", twice)
	}
}
